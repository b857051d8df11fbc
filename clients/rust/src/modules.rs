//! The modules that a client's principal has at the gateway.

use bytes::Bytes;
use offload_protocol::request::{ModulesRequest, StoredModule, decode_list};

use crate::{Answer, Client, Code, Digest, Error, Form, Outcome, Request, WireError};

/// They belong to the principal: the user or the certificate that the broker has authenticated, all clients together
/// where it authenticates nobody. On an external broker, which hides that, they belong to the client id
/// ([`Options::client_id`](crate::Options::client_id)), which by default is another one each time.
impl Client {
    /// What there is, the last used first.
    ///
    /// # Errors
    /// As of [`Client::send`], and [`Error::Gateway`].
    pub async fn modules(&self) -> Result<Vec<StoredModule>, Error> {
        decode_list(&self.about_modules(ModulesRequest::List).await?).map_err(Error::Answer)
    }

    /// Has the gateway compile a module and keep it, without running it: its digest is enough from then on.
    ///
    /// # Errors
    /// As of [`Client::send`], and [`Error::Gateway`].
    pub async fn store_module(&self, module: Bytes) -> Result<StoredModule, Error> {
        let stdout = self.about_modules(ModulesRequest::Store(module)).await?;
        let stored = decode_list(&stdout).map_err(Error::Answer)?;
        let none = || Error::Answer(WireError::malformed("modules", "expected the module that was stored"));
        stored.into_iter().next().ok_or_else(none)
    }

    /// Has the gateway forget a module. Requests for it that run, or wait, go on.
    ///
    /// # Errors
    /// As of [`Client::send`], and [`Error::Gateway`]: of kind `not-found` where there is none.
    pub async fn remove_module(&self, digest: Digest) -> Result<(), Error> {
        self.about_modules(ModulesRequest::Remove(digest)).await.map(drop)
    }

    async fn about_modules(&self, request: ModulesRequest) -> Result<Bytes, Error> {
        // As CBOR, in which bytes are themselves.
        let request = Request { form: Form::Cbor, ..Request::new(Code::Modules(request)) };
        let Answer { outcome, stdout, .. } = self.send(request).await?;
        match outcome {
            Outcome::Exited(_) => Ok(stdout),
            Outcome::Failed(error) => Err(Error::Gateway(error)),
        }
    }
}
