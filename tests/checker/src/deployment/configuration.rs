//! What each server is started with.

use anyhow::Result;
use tokio::process::Command;

use super::{Deployment, MEMBERS, Port, Server, Target, gate, program};

/// Time after which a request of a gateway that died is another one's: the least that is configurable.
const ACK_WAIT: &str = "1s";

/// A site that is away is waited for, however long it takes: the checker judges what comes in the end.
const BUFFER_AGE: &str = "1h";

impl Deployment {
    pub(super) fn command(&self, server: Server) -> Result<Command> {
        match server {
            Server::Gateway(number) => self.gateway_command(number),
            Server::Mosquitto => self.mosquitto_command(),
            Server::Nats(number) => self.nats_command(number),
            Server::Master => {
                let mut command = Command::new(&self.settings.gateway);
                command.args(["master", "--listen", &self.addresses[&Port::Mqtt(server)].to_string()]);
                Ok(command)
            }
        }
    }

    fn gateway_command(&self, number: u8) -> Result<Command> {
        let server = Server::Gateway(number);
        let durability = self.settings.durability.as_ref();
        let durability = durability.map_or(String::new(), |value| format!("durability = \"{value}\"\n"));
        let mut tables = "[status]\ninterval = \"100ms\"\n".to_owned();
        let of_servers = |port: fn(u8) -> Port| {
            let addresses = (0..MEMBERS).filter_map(move |number| self.addresses.get(&port(number)));
            addresses.map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut flags = Vec::new();
        match self.settings.target {
            Target::Embedded => {}
            Target::Mosquitto | Target::MosquittoPlain => {
                let broker = self.addresses[&Port::Mqtt(Server::Mosquitto)];
                flags.extend(["--broker".to_owned(), format!("mqtt://{broker}")]);
            }
            Target::Nats => {
                let mqtt = of_servers(|server| Port::Mqtt(Server::Nats(server)));
                let mqtt: Vec<String> = mqtt.iter().map(|address| format!("mqtt://{address}")).collect();
                tables += &format!("[nats]\nmqtt = {:?}\nack_wait = \"{ACK_WAIT}\"\n", mqtt.join(","));
                let servers = of_servers(Port::Client).join(",");
                flags.extend(["--broker".to_owned(), format!("nats://{servers}")]);
            }
            Target::Sites => {
                tables += &format!("[network]\nbuffer_age = \"{BUFFER_AGE}\"\n");
                let master = format!("mqtt://{}", self.addresses[&Port::ToMaster(number)]);
                flags.extend(["--gate".to_owned(), gate(number), "--master".to_owned(), master]);
            }
        }
        if let Some(address) = self.addresses.get(&Port::Mqtt(server)) {
            flags.extend(["--listen".to_owned(), address.to_string()]);
        }
        let name = format!("checked-{}", number + 1);
        let configuration = format!("name = \"{name}\"\n{durability}{}{tables}", self.settings.configuration);
        let file = self.folder.path().join(format!("{}.toml", server.name()));
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(&self.settings.gateway);
        command.arg("serve").arg("--config").arg(file).arg("--data-dir").arg(self.data(server)).args(flags);
        Ok(command)
    }

    fn mosquitto_command(&self) -> Result<Command> {
        let (folder, address) = (self.folder.path(), self.addresses[&Port::Mqtt(Server::Mosquitto)]);
        let file = folder.join("mosquitto.conf");
        // Without the user line root's Mosquitto becomes another user, who cannot write here. Nothing is dropped for
        // want of room: what is lost then is lost by a crash.
        let text = format!(
            "listener {port} {host}\nallow_anonymous true\nset_tcp_nodelay true\npersistence {persistence}\n\
             persistence_location {folder}/\nmax_queued_messages 0\nuser root\nlog_dest stderr\nlog_type error\n\
             log_type warning\n",
            port = address.port(),
            host = address.ip(),
            persistence = self.settings.persistence,
            folder = folder.display(),
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new(program("mosquitto")?);
        command.arg("-c").arg(file);
        Ok(command)
    }

    fn nats_command(&self, number: u8) -> Result<Command> {
        let folder = self.folder.path();
        let address = |port: Port| self.addresses[&port];
        let routes = (0..MEMBERS).filter(|other| *other != number);
        let routes =
            routes.map(|other| format!("\"nats://{}\"", address(Port::BetweenServers(number, other))));
        // What the servers would tell each other of where they are leads nowhere: the links are the only way.
        let text = format!(
            "server_name: node{number}\nlisten: \"{client}\"\n\
             jetstream {{ store_dir: \"{data}\", sync_interval: always }}\nmqtt {{ listen: \"{mqtt}\", stream_replicas: {MEMBERS} }}\n\
             cluster {{ name: checked, listen: \"{route}\", advertise: \"127.0.0.1:1\", routes: [{routes}] }}\n",
            client = address(Port::Client(number)),
            data = folder.join(format!("data-{number}")).display(),
            mqtt = address(Port::Mqtt(Server::Nats(number))),
            route = address(Port::Route(number)),
            routes = routes.collect::<Vec<_>>().join(", "),
        );
        let file = folder.join(format!("nats-{number}.conf"));
        std::fs::write(&file, text)?;
        let program = match &self.settings.nats_server {
            Some(file) => file.clone(),
            None => program("nats-server")?,
        };
        let mut command = Command::new(program);
        command.arg("-c").arg(file);
        Ok(command)
    }
}
