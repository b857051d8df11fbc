//! The configuration as one tree: all its tables, with what is given at the top of the file.

use super::given::Given;
use super::section::Section;
use super::table::table;
use super::{
    Access, Answers, Broker, Compiler, Durability, Idempotency, Journal, Keys, Limits, Listen, Master,
    MaxAnswer, Mirror, Modules, NativeMode, Nats, Network, Program, Queue, Rule, Sandbox, Status, TimeSpan,
    Tls, Watchdog, WebSocket, Workers, defaults,
};
use std::path::{Path, PathBuf};

table! {
    /// Configuration of offload-rt. Sizes are written "64MiB" or "64KB" (plain integers are bytes), times "10s",
    /// "500ms" or "250us". Relative paths are relative to the folder of this file. A key that is commented out is not
    /// set; its value is the one shown.
    pub struct Config {
        /// The gateway's name, in its status topic `gateway/<name>/status`: 1 to 64 of `A-Z a-z 0-9 . _ -`.
        /// Default: the host's name.
        pub name: String = defaults::name();
        /// Folder of the gateway's state; one gateway at a time uses it. Default: $XDG_STATE_HOME/offload-rt or
        /// ~/.local/state/offload-rt; for root /var/lib/offload-rt.
        pub data_dir: PathBuf = defaults::data_dir();
        /// Longest time that running requests get to finish when the gateway is told to stop.
        pub drain: TimeSpan = TimeSpan::secs(10), in TimeSpan::ZERO..=TimeSpan::secs(3600);
        /// How source in requests is run. "native": it is built and run in a sandbox. "wasm": it is built for WASI in
        /// the sandbox and runs as a module; that needs clang and wasi-libc, and a `long` has 32 bits. "compare": as
        /// "native", and each difference to "wasm" is logged. "auto": "native" where the embedded broker listens on
        /// loopback alone, else "off".
        pub native: NativeMode = NativeMode::Auto;
        /// What a crash may lose of what was acknowledged. "always": nothing; each acknowledgement waits for the disk,
        /// or for the answer if that comes first. "batch": nothing when the process is killed; a power cut loses the
        /// last `journal.sync_interval`. "off": all requests, sessions and retained messages, also when it is killed.
        pub durability: Durability = Durability::Always;
    }
    tables {
        /// `[listen]`: the embedded broker. Not used when there is a `[broker]`.
        pub listen: Listen,
        /// `[tls]`: the embedded broker over TLS. Absent by default.
        pub tls: Option<Tls>,
        /// `[websocket]`: the embedded broker over WebSocket. Absent by default.
        pub websocket: Option<WebSocket>,
        /// `[access]`: which clients may connect, and what they may do.
        pub access: Access,
        /// `[broker]`: an existing broker to join instead of the embedded one. Absent by default.
        pub broker: Option<Broker>,
        /// `[nats]`: what the gateway has in JetStream, where the broker is NATS.
        pub nats: Nats,
        /// `[network]`: other sites, whose router this gateway joins as. Absent by default.
        pub network: Option<Network>,
        /// `[master]`: what `offload-rt master` reads. Absent by default.
        pub master: Option<Master>,
        /// `[workers]`: the threads that run guests.
        pub workers: Workers,
        /// `[limits]`: what one request may use.
        pub limits: Limits,
        /// `[queue]`: how many requests may wait.
        pub queue: Queue,
        /// `[compiler]`: the child process that compiles modules.
        pub compiler: Compiler,
        /// `[modules]`: the modules that clients have sent.
        pub modules: Modules,
        /// `[sandbox]`: what native programs may use.
        pub sandbox: Sandbox,
        /// `[idempotency]`: how long requests with an `id` are remembered.
        pub idempotency: Idempotency,
        /// `[journal]`: what outlives a crash.
        pub journal: Journal,
        /// `[keys]`: the keys that requests are sealed to.
        pub keys: Keys,
        /// `[[program]]`: programs that requests may name.
        pub program: Vec<Program>,
        /// `[answers]`: where answers may go and how large they may be.
        pub answers: Answers,
        /// `[status]`: what the gateway says of itself.
        pub status: Status,
        /// `[mirror]`: requests and their outcome for monitoring.
        pub mirror: Mirror,
        /// `[watchdog]`: whether the embedded broker still does its work.
        pub watchdog: Watchdog,
    }
}

impl Config {
    /// The effective configuration as TOML: each key below its documentation, accepted values and unit. What is
    /// absent or not `given` is shown as a comment. Parses back to the same configuration, on this machine and on
    /// another.
    pub fn to_commented_toml(&self, given: &Given) -> String {
        let sections = self.sections();
        sections.iter().map(|section| section.to_toml(given)).collect::<Vec<_>>().join("\n")
    }

    /// The tables that this configuration has, and the optional ones that it could have.
    pub(super) fn sections(&self) -> Vec<Section> {
        let broker = self.broker.clone().unwrap_or_default();
        let tls = self.tls.clone().unwrap_or_default();
        let websocket = self.websocket.clone().unwrap_or_default();
        let network = self.network.clone().unwrap_or_default();
        let master = self.master.clone().unwrap_or_default();
        let mut sections = vec![
            Section::of("", "", self, true),
            Section::of("listen", "[listen]", &self.listen, true),
            Section::of("tls", "[tls]", &tls, self.tls.is_some()),
            Section::of("websocket", "[websocket]", &websocket, self.websocket.is_some()),
            Section::of("access", "[access]", &self.access, true),
        ];
        for (index, rule) in self.access.rule.iter().enumerate() {
            sections.push(Section::of(format!("access.rule[{index}]"), "[[access.rule]]", rule, true));
        }
        if self.access.rule.is_empty() {
            sections.push(Section::of("access.rule[0]", "[[access.rule]]", &Rule::default(), false));
        }
        sections.extend([
            Section::of("broker", "[broker]", &broker, self.broker.is_some()),
            Section::of("nats", "[nats]", &self.nats, true),
            Section::of("network", "[network]", &network, self.network.is_some()),
            Section::of("master", "[master]", &master, self.master.is_some()),
            Section::of("workers", "[workers]", &self.workers, true),
            Section::of("limits", "[limits]", &self.limits, true),
            Section::of("queue", "[queue]", &self.queue, true),
            Section::of("compiler", "[compiler]", &self.compiler, true),
            Section::of("modules", "[modules]", &self.modules, true),
            Section::of("sandbox", "[sandbox]", &self.sandbox, true),
            Section::of("idempotency", "[idempotency]", &self.idempotency, true),
            Section::of("journal", "[journal]", &self.journal, true),
            Section::of("keys", "[keys]", &self.keys, true),
        ]);
        for (index, program) in self.program.iter().enumerate() {
            sections.push(Section::of(format!("program[{index}]"), "[[program]]", program, true));
        }
        if self.program.is_empty() {
            sections.push(Section::of("program[0]", "[[program]]", &Program::default(), false));
        }
        sections.push(Section::of("answers", "[answers]", &self.answers, true));
        for (index, max) in self.answers.max.iter().enumerate() {
            sections.push(Section::of(format!("answers.max[{index}]"), "[[answers.max]]", max, true));
        }
        if self.answers.max.is_empty() {
            sections.push(Section::of("answers.max[0]", "[[answers.max]]", &MaxAnswer::default(), false));
        }
        sections.push(Section::of("status", "[status]", &self.status, true));
        sections.push(Section::of("mirror", "[mirror]", &self.mirror, true));
        sections.push(Section::of("watchdog", "[watchdog]", &self.watchdog, true));
        sections
    }

    /// Every table with its keys; those of a list stand for all of its entries.
    pub(super) fn schema() -> Vec<Section> {
        Config::default().sections()
    }

    /// Takes relative paths as relative to `folder`.
    pub(super) fn resolve_paths(&mut self, folder: &Path) {
        let mut paths: Vec<&mut PathBuf> = self.files().into_iter().map(|(_, path)| path).collect();
        paths.iter_mut().for_each(|path| **path = folder.join(&**path));
        if !self.data_dir.as_os_str().is_empty() {
            self.data_dir = folder.join(&self.data_dir);
        }
        if let Some(path) = &mut self.keys.path {
            *path = folder.join(&*path);
        }
    }

    /// The files that are named, by their keys. An empty path is a missing one, which is refused as such.
    pub(super) fn files(&mut self) -> Vec<(String, &mut PathBuf)> {
        let mut files = Vec::new();
        if let Some(Broker { password_file, cafile, cert, key, .. }) = &mut self.broker {
            let named = [
                ("broker.password_file", password_file),
                ("broker.cafile", cafile),
                ("broker.cert", cert),
                ("broker.key", key),
            ];
            files.extend(named.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path.as_mut()?))));
        }
        if let Some(Tls { certificate, key, client_ca, .. }) = &mut self.tls {
            files.extend([("tls.certificate".to_owned(), certificate), ("tls.key".to_owned(), key)]);
            files.extend(client_ca.iter_mut().map(|path| ("tls.client_ca".to_owned(), path)));
        }
        if let Some(Network { cafile, cert, key, .. }) = &mut self.network {
            let named = [("network.cafile", cafile), ("network.cert", cert), ("network.key", key)];
            files.extend(named.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path.as_mut()?))));
        }
        if let Some(Master { certificate, key, client_ca, .. }) = &mut self.master {
            let named =
                [("master.certificate", certificate), ("master.key", key), ("master.client_ca", client_ca)];
            files.extend(named.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path.as_mut()?))));
        }
        files.extend(self.access.passwords.iter_mut().map(|path| ("access.passwords".to_owned(), path)));
        files.extend(self.compiler.program.iter_mut().map(|path| ("compiler.program".to_owned(), path)));
        files.extend(self.modules.preload.iter_mut().map(|path| ("modules.preload".to_owned(), path)));
        let programs = self.program.iter_mut().enumerate();
        files.extend(programs.map(|(index, program)| (format!("program[{index}].file"), &mut program.file)));
        files.retain(|(_, path)| !path.as_os_str().is_empty());
        files
    }
}
