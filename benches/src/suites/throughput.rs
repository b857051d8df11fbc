//! Small requests at QoS 1 both ways, by number in flight and of clients, beside echoes on our broker and on Mosquitto.

use crate::guests::Guests;
use crate::load::{self, Connection, Crowd, Load, Request};
use crate::request;
use crate::rounds::{Plan, turns};
use crate::serve::Kind;
use crate::server::Server;
use crate::table::{LOAD_FIGURES, Table, of_load};
use anyhow::{Context, Result};
use offload_protocol::request::Digest;

/// CRC-32 of [`request::numbers`], as the guest `checksum` prints it.
const CHECKSUM: &[u8] = b"f3a88a5d\n";

/// What the guest `greet` prints, whatever it is given.
const GREETING: &[u8] = b"hello from a component!\n";

/// How many requests, from how many clients.
struct Setting {
    name: String,
    connections: usize,
    /// On each of them.
    in_flight: u16,
    idle_clients: usize,
}

/// A server that is asked for something.
struct Contender {
    name: &'static str,
    /// Its place in the list of servers.
    server: usize,
    request: Request,
}

/// Modules are not compiled twice, so that nothing is compiled while something else is measured.
const GATEWAY: &str = "[compiler]\nbaseline = false\n";

pub fn run(plan: &Plan, guests: &Guests) -> Result<Vec<Table>> {
    let servers = [
        Server::gateway(GATEWAY)?,
        Server::start(Kind::Echo)?,
        Server::start(Kind::BrokerEcho)?,
        Server::start(Kind::MosquittoEcho)?,
    ];
    let contenders = contenders(&servers[0], guests)?;
    let mut table = Table::new("throughput", "Requests beside echoes", &LOAD_FIGURES).compare(&[
        ("localCode", "echo"),
        ("module", "echo"),
        ("component", "echo"),
        ("Rust component", "echo"),
        ("localCode", "mosquitto echo"),
        ("module", "mosquitto echo"),
        ("component", "mosquitto echo"),
        ("Rust component", "mosquitto echo"),
        ("echo", "mosquitto echo"),
        ("broker echo", "mosquitto echo"),
    ]);
    let settings = settings(plan);
    plan.each_round("throughput", |round| {
        for setting in &settings {
            for (place, server) in turns(round, &servers.iter().enumerate().collect::<Vec<_>>()) {
                let _crowd = Crowd::connect(server.address(), setting.idle_clients)?;
                let own: Vec<&Contender> = contenders.iter().filter(|own| own.server == *place).collect();
                for contender in turns(round, &own) {
                    let load = Load {
                        connections: setting.connections,
                        ..Load::closed(&contender.request, setting.in_flight, plan.measured)
                    };
                    let measured = load::run(server.address(), &load).context(contender.name)?;
                    table.add(round, &setting.name, contender.name, of_load(&measured));
                }
            }
        }
        Ok(())
    })?;
    Ok(vec![table])
}

fn settings(plan: &Plan) -> Vec<Setting> {
    let setting = |connections, in_flight, idle_clients| {
        let total = connections * usize::from(in_flight);
        let clients = if connections == 1 { "1 client" } else { &format!("{connections} clients") };
        let beside = if idle_clients == 0 { String::new() } else { format!(", {idle_clients} idle") };
        Setting {
            name: format!("{clients}, {total} in flight{beside}"),
            connections,
            in_flight,
            idle_clients,
        }
    };
    let mut settings =
        vec![setting(1, 1, 0), setting(1, 16, 0), setting(1, 64, 0), setting(64, 1, 0), setting(64, 16, 0)];
    if plan.idle_clients > 0 {
        settings.extend([setting(1, 1, plan.idle_clients), setting(64, 1, plan.idle_clients)]);
    }
    settings
}

/// `gateway` is the first of the servers. It gets to know the modules that are later named by their digest.
fn contenders(gateway: &Server, guests: &Guests) -> Result<Vec<Contender>> {
    let mut client = Connection::open(gateway.address(), "sender")?;
    let stdin = request::numbers();
    let mut known = |name: &str, answer: &[u8]| {
        let module = guests.load(name)?;
        client.ask(&request::module(&module, &[]))?;
        let request = request::known(&Digest::of(&module), &stdin, answer);
        client.ask_rightly(&request).with_context(|| name.to_owned())?;
        anyhow::Ok(request)
    };
    let (module, component, rust) =
        (known("echo", &stdin)?, known("greet", GREETING)?, known("checksum", CHECKSUM)?);
    client.close()?;
    let contender = |name, server, request| Contender { name, server, request };
    Ok(vec![
        contender("localCode", 0, request::add()),
        contender("module", 0, module),
        contender("component", 0, component),
        contender("Rust component", 0, rust),
        contender("echo", 1, request::echo()),
        contender("broker echo", 2, request::echo()),
        contender("mosquitto echo", 3, request::echo()),
    ])
}
