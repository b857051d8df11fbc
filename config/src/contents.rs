//! Whether the files that a configuration names hold what they should. They are read here as the gateway reads them
//! when it starts, so that what is wrong with them is found by `config --check` too, and told with the key's line.

use super::certificates::{CertificatesError, Files};
use super::password_file::PasswordFile;
use super::{Config, Refusal, Tls};
use offload_broker::TlsPart;
use offload_tls::TlsError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How a compiled module or component begins.
const WASM_MAGIC: [u8; 4] = *b"\0asm";

impl Config {
    /// Finds what is wrong in the files of which none is refused already.
    pub(super) fn check_contents(&self, refusals: &mut Vec<Refusal>) {
        let mut found = Vec::new();
        let is_refused = |key: &str| refusals.iter().any(|refusal| refusal.is_about(key));
        if let (Some(broker), false) = (&self.broker, is_refused("broker")) {
            let named = [&broker.cafile, &broker.cert, &broker.key].into_iter().flatten();
            let files = broker.tls().filter(|_| are_regular(named));
            found.extend(files.and_then(|files| files.client_config().err()).map(broker_refusal));
        }
        if let (Some(tls), None, false) = (&self.tls, &self.broker, is_refused("tls")) {
            let files = [&tls.certificate, &tls.key].into_iter().chain(&tls.client_ca);
            found.extend(are_regular(files).then(|| tls_refusal(tls)).flatten());
        }
        if let (Some(file), None) = (&self.access.passwords, &self.broker)
            && !is_refused("access.passwords")
            && are_regular([file])
            && let Err(error) = PasswordFile::load(file)
        {
            // It says what is accepted.
            found.push(Refusal::new("access.passwords", error.to_string()));
        }
        let programs = self.program.iter().enumerate();
        let programs = programs.map(|(index, program)| (format!("program[{index}].file"), &program.file));
        let preloaded = self.modules.preload.iter().map(|file| ("modules.preload".to_owned(), file));
        for (key, file) in programs.chain(preloaded).filter(|(key, _)| !is_refused(key)) {
            if are_regular([file])
                && let Some(problem) = text_problem(file)
            {
                let refusal = Refusal::new(key, format!("{}: {problem}", file.display()));
                found.push(refusal.accepting("a `.wasm` or `.wat` file"));
            }
        }
        refusals.extend(found);
    }
}

/// Whether these can be read twice; what comes from a pipe is gone when it was read.
fn are_regular<'a>(files: impl IntoIterator<Item = &'a (impl AsRef<Path> + 'a)>) -> bool {
    files.into_iter().all(|file| file.as_ref().is_file())
}

/// What is wrong with the files of `[tls]`, at the key whose file it is.
fn tls_refusal(tls: &Tls) -> Option<Refusal> {
    let error = Files::read(tls).err()?;
    let part = match &error {
        CertificatesError::Refused(offload_broker::Error::Certificates { what, .. }) => *what,
        _ => TlsPart::Certificate,
    };
    let (key, file) = match part {
        TlsPart::Certificate | TlsPart::Protocol => ("tls.certificate", Some(&tls.certificate)),
        TlsPart::Key | TlsPart::Pair => ("tls.key", Some(&tls.key)),
        TlsPart::ClientCa => ("tls.client_ca", tls.client_ca.as_ref()),
    };
    let problem = match (&error, file) {
        (CertificatesError::Refused(offload_broker::Error::Certificates { error, .. }), Some(file)) => {
            format!("{}: {error}", file.display())
        }
        _ => error.to_string(),
    };
    Some(match part {
        TlsPart::Pair => {
            let problem = format!("{} is not the key of `tls.certificate`", tls.key.display());
            Refusal::new(key, problem).beside("tls.certificate").accepting("the certificate's own key")
        }
        _ => Refusal::new(key, problem).accepting("a PEM file; `offload-rt keygen` makes one"),
    })
}

/// The same of the files of `[broker]`.
fn broker_refusal(error: TlsError) -> Refusal {
    let key = match &error {
        TlsError::Content { expected, .. } if expected.contains("key") => "broker.key",
        TlsError::NoPair { .. } => "broker.key",
        _ => "broker.cafile",
    };
    Refusal::new(key, error.to_string())
        .accepting("certificates and keys in PEM, as the broker's owner gives them")
}

/// Why a file is neither a compiled module nor the text of one. Whether a module can be compiled is found when it is.
fn text_problem(file: &Path) -> Option<String> {
    let mut start = [0; WASM_MAGIC.len()];
    let mut open = File::open(file).ok()?;
    if open.read_exact(&mut start).is_ok() && start == WASM_MAGIC {
        return None;
    }
    let error = wat::parse_bytes(&std::fs::read(file).ok()?).err()?.to_string();
    let first = error.lines().next().unwrap_or_default();
    Some(format!("neither a module nor WebAssembly text: {first}"))
}
