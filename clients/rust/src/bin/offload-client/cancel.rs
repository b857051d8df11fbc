//! `offload-client cancel`: ends a request that another process waits for.

use clap::Args;
use offload_client::{Answer, Client, Options, RequestId};

use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::report::report;
use crate::seal::{SealFlags, explained};
use crate::send::gate;

/// What the client ids begin with that are made up.
const MADE_UP: &str = "offload-";

/// Cancel a request that waits or runs
///
/// The request is known by its id, and by the client id of who has sent it (-i). Whoever waits for it is answered
/// `cancelled`, and so is whoever repeats it. It is `not-found` where no such request waits or runs: it has ended, was
/// sent without an id, or by another client. A sealed request is known by its id alone, and cancelled sealed (--seal),
/// whoever does it; one that went to another site, there (--gate). Errors exit 125.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Cancel {
    /// The id of the request
    #[arg(value_name = "ID")]
    request: String,

    /// Print the whole answer, errors too, as one JSON object on stdout
    #[arg(long)]
    json: bool,

    /// The gate of the site that the request went to
    #[arg(long, value_name = "GATE", value_parser = gate)]
    gate: Option<String>,

    #[command(flatten)]
    seal: SealFlags,
}

const EXAMPLES: &str = "\
Examples:
  offload-client -i press-4 send --id long-job prog.wasm &
  offload-client -i press-4 cancel long-job
  offload-client cancel --seal 1f0c5a8e9b7d4c2a6e3f5b8d7c9a0e1f";

impl Cancel {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags) -> u8 {
        let result = connection.options().and_then(|mut options| {
            options.gate = self.gate;
            cancel(options, &self.request, &self.seal)
        });
        report(result, self.json)
    }
}

fn cancel(mut options: Options, id: &str, seal: &SealFlags) -> Result<Answer, Failure> {
    let id = RequestId::try_from(id).map_err(|error| Failure::usage(error.message))?;
    if options.client_id.starts_with(MADE_UP) && !seal.is_wanted() {
        return Err(Failure::usage("-i: expected, the client id of who has sent the request"));
    }
    // Of two clients with one id the broker keeps the one that came last: who waits for the request is to stay.
    let suffix = Options::default().client_id;
    let own = format!("{}-{}", options.client_id, suffix.trim_start_matches(MADE_UP));
    options.reply_id = Some(std::mem::replace(&mut options.client_id, own));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("internal", format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let exchange = async {
            seal.apply(&mut options).await?;
            let client = Client::connect(options.clone()).await?;
            let answer = client.cancel(&id).await;
            client.disconnect().await;
            Ok(explained(answer?, &options))
        };
        tokio::select! {
            result = exchange => result,
            () = interrupted() => Err(Failure::interrupted("the request may be cancelled or not")),
        }
    })
}
