//! The gateway's configuration: one typed tree, one file a table, whose defaults are its documentation.
//!
//! Without a file every value is its default. A file names only what differs, and what it leaves out follows what it
//! says ([`relations`]). A key that does not exist, a wrong unit, an impossible value, or values that contradict each
//! other are refused, all of them at once, with their places in the file and with what would be accepted.

mod access;
mod answers;
mod broker;
mod compiler;
mod defaults;
mod draft;
mod error;
mod host_port;
mod idempotency;
mod limits;
mod listen;
mod locate;
mod mirror;
mod modules;
mod native;
mod program;
mod quantity;
mod queue;
mod relations;
mod size;
mod status;
mod table;
mod time_span;
mod tls;
mod topic_filter;
mod topic_pattern;
mod watchdog;
mod websocket;
mod workers;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub use access::{Access, Offload, Rule};
pub use answers::{Answers, MaxAnswer};
pub use broker::{Broker, BrokerUrl, MqttVersion};
pub use compiler::Compiler;
pub use draft::{Draft, Finished, Given};
pub use error::{ConfigError, MAX_REFUSALS, Place, Refusal, Refusals};
pub use host_port::HostPort;
pub use idempotency::Idempotency;
pub use limits::{Limits, WASM_PAGE};
pub use listen::Listen;
pub use mirror::Mirror;
pub use modules::Modules;
pub use native::{NativeMode, Sandbox};
pub use program::Program;
pub use queue::Queue;
pub use size::ByteSize;
pub use status::Status;
pub use time_span::TimeSpan;
pub use tls::Tls;
pub use topic_filter::TopicFilter;
pub use topic_pattern::TopicPattern;
pub use watchdog::Watchdog;
pub use websocket::WebSocket;
pub use workers::Workers;

use crate::programs;
use table::{Key, Table, nearest, table};

/// Most bytes of a configuration file: a file given by mistake is refused before it fills the memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

table! {
    /// Configuration of offload-rt. Sizes are written "64MiB" or "64KB" (plain integers are bytes), times "10s",
    /// "500ms" or "250us". Relative paths are relative to the folder that this file is in. Keys that are commented
    /// out are not set, and have the value that is shown.
    pub struct Config {
        /// The gateway's name, in its status topic `gateway/<name>/status`: 1 to 64 of `A-Z a-z 0-9 . _ -`.
        /// Default: the host's name.
        pub name: String = defaults::name();
        /// Folder for what outlives the process; one gateway at a time uses it. Default:
        /// $XDG_STATE_HOME/offload-rt or ~/.local/state/offload-rt; for root /var/lib/offload-rt.
        pub data_dir: PathBuf = defaults::data_dir();
        /// Longest time that running requests get to finish when the gateway is told to stop.
        pub drain: TimeSpan = TimeSpan::secs(10), in TimeSpan::ZERO..=TimeSpan::secs(3600);
        /// What becomes of source that requests carry. "native": it is built and run in a sandbox. "wasm": it is built
        /// for WASI there and runs as any module, where clang and wasi-libc are installed; what needs a `long` of 64
        /// bits then has other results. "compare": "native", and each difference to "wasm" is logged. "auto": "native"
        /// where this gateway's own broker listens on loopback alone.
        pub native: NativeMode = NativeMode::Auto;
    }
    tables {
        /// `[listen]`: the embedded broker. Not used when there is a `[broker]`.
        pub listen: Listen,
        /// `[tls]`: the embedded broker over TLS. Absent by default.
        pub tls: Option<Tls>,
        /// `[websocket]`: the embedded broker over WebSocket. Absent by default.
        pub websocket: Option<WebSocket>,
        /// `[access]`: who is let in, and who may do what.
        pub access: Access,
        /// `[broker]`: an existing broker to join instead of the embedded one. Absent by default.
        pub broker: Option<Broker>,
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
        /// `[[program]]`: programs that requests may name.
        pub program: Vec<Program>,
        /// `[answers]`: where answers may go and how large they may be.
        pub answers: Answers,
        /// `[status]`: what the gateway says of itself.
        pub status: Status,
        /// `[mirror]`: requests and their outcome for whoever watches.
        pub mirror: Mirror,
        /// `[watchdog]`: whether the embedded broker still does its work.
        pub watchdog: Watchdog,
    }
}

/// One table as it stands in a file.
struct Section {
    /// Path of the table: `limits`, `program[0]`.
    path: String,
    heading: String,
    doc: &'static [&'static str],
    keys: Vec<Key>,
    /// False for a table that is absent, and printed as a comment to show what it could hold.
    present: bool,
}

impl Section {
    fn of<T: Table>(
        path: impl Into<String>,
        heading: impl Into<String>,
        table: &T,
        present: bool,
    ) -> Section {
        Section { path: path.into(), heading: heading.into(), doc: T::DOC, keys: table.keys(), present }
    }
}

impl Config {
    /// Reads `path`, and completes and checks what it says. Relative paths in it are relative to the folder that it
    /// is in.
    ///
    /// # Errors
    /// When the file cannot be read, is larger than [`MAX_FILE_BYTES`], or holds anything that is refused.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Ok(Draft::read(path)?.finish()?.config)
    }

    /// Completes and checks a configuration whose values were set in code: those that are not the defaults are given,
    /// and the others follow them.
    ///
    /// # Errors
    /// Names each key, what is wrong with its value, and what is accepted.
    pub fn settle(&mut self) -> Result<(), Refusals> {
        let (given, mut refusals) = (Given::by_difference(self), Vec::new());
        self.complete(&given, &mut refusals);
        Refusals::or_ok(refusals)
    }

    /// Derives what was not given, and finds what no gateway could run with.
    fn complete(&mut self, given: &Given, refusals: &mut Vec<Refusal>) {
        for section in self.sections().iter().filter(|section| section.present) {
            for key in section.keys.iter().filter(|key| !key.in_range) {
                let problem = format!("{} is out of range", key.value.as_deref().unwrap_or_default());
                let refusal = Refusal::new(section.key(key.name), problem);
                refusals.push(refusal.accepting(key.accepts.clone()));
            }
        }
        let mut contradictions = Vec::new();
        relations::settle(self, given, &mut contradictions);
        contradictions.retain(|refusal| !refusals.iter().any(|first| refusal.is_about(&first.key)));
        refusals.extend(contradictions);
        self.check(refusals);
    }

    fn check(&mut self, refusals: &mut Vec<Refusal>) {
        if !is_gateway_name(&self.name) {
            let problem = format!("{:?} is no gateway name", self.name);
            refusals.push(Refusal::new("name", problem).accepting("1 to 64 of `A-Z a-z 0-9 . _ -`"));
        }
        if self.data_dir.as_os_str().is_empty() {
            let problem = "neither $XDG_STATE_HOME nor a home directory says where it is";
            refusals.push(Refusal::new("data_dir", problem).accepting("a folder, or --data-dir DIR"));
        }
        match &self.broker {
            Some(broker) => broker.check(refusals),
            None => self.check_auth(refusals),
        }
        if let Some(tls) = &self.tls {
            tls.check(refusals);
        }
        if let Some(websocket) = &self.websocket {
            websocket.check(self.tls.is_some(), refusals);
        }
        self.workers.check(refusals);
        self.limits.check(refusals);
        self.compiler.check(refusals);
        self.sandbox.check(refusals);
        for (index, max) in self.answers.max.iter().enumerate() {
            max.check(&format!("answers.max[{index}]"), refusals);
        }
        self.check_programs(refusals);
        self.check_files(refusals);
    }

    /// What only the embedded broker wants: that it listens in places of its own, and knows who comes in from where.
    fn check_auth(&self, refusals: &mut Vec<Refusal>) {
        self.listen.check(refusals);
        let tls = self.tls.as_ref().map(|tls| ("tls.address", &tls.address));
        let websocket = self.websocket.as_ref().map(|websocket| ("websocket.address", &websocket.address));
        let all: Vec<(&str, &HostPort)> =
            [Some(("listen.address", &self.listen.address)), tls, websocket].into_iter().flatten().collect();
        for (index, (key, address)) in all.iter().enumerate() {
            if let Some((taken, _)) = all[..index].iter().find(|(_, other)| other.collides_with(address)) {
                let refusal = Refusal::new(*key, format!("{address} is that of `{taken}`")).beside(*taken);
                refusals.push(refusal.accepting("another port, or 0 for a free one"));
            }
        }
        let has_certificates = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let Access { anonymous, passwords, .. } = &self.access;
        let knows_nobody = passwords.is_none() && !has_certificates;
        let remedies = "`access.passwords`, or `tls.client_ca`";
        if knows_nobody && *anonymous == Some(false) {
            let problem =
                "nobody could come in: neither `access.passwords` nor `tls.client_ca` tells who a client is";
            let refusal = Refusal::new("access.anonymous", problem).beside("access.passwords");
            refusals.push(refusal.accepting(format!("true, or {remedies}")));
        }
        if knows_nobody && *anonymous != Some(true) {
            for (key, address) in all.iter().filter(|(_, address)| address.is_exposed()) {
                let problem = format!(
                    "strangers could reach {address}, and neither `access.passwords` nor `tls.client_ca` keeps them out"
                );
                let refusal = Refusal::new(*key, problem).beside("access.passwords");
                let accepted = format!(
                    "a loopback address such as 127.0.0.1:{}, or {remedies}, or `access.anonymous = true` \
                     (--allow-anonymous)",
                    address.port
                );
                refusals.push(refusal.accepting(accepted));
            }
        }
        for (index, rule) in self.access.rule.iter().enumerate() {
            rule.check(&format!("access.rule[{index}]"), &self.access, refusals);
        }
    }

    fn check_programs(&self, refusals: &mut Vec<Refusal>) {
        let mut names = HashSet::from([programs::BUILT_IN]);
        let mut default: Option<(&str, String)> = None;
        for (index, program) in self.program.iter().enumerate() {
            let path = format!("program[{index}]");
            program.check(&path, refusals);
            // In the place of the built-in one there may be another of its name.
            if !names.insert(&program.name)
                && self.program[..index].iter().any(|other| other.name == program.name)
            {
                let problem = format!("there are two programs called `{}`", program.name);
                refusals.push(Refusal::new(format!("{path}.name"), problem).accepting("a name of its own"));
            }
            if program.default {
                if let Some((first, key)) = &default {
                    let refusal = Refusal::new(
                        format!("{path}.default"),
                        format!("`{first}` is the default program already"),
                    );
                    refusals.push(refusal.beside(key).accepting("true for one program at most"));
                } else {
                    default = Some((&program.name, format!("{path}.default")));
                }
            }
        }
        let rules = self.access.rule.iter().enumerate();
        let rules = rules.map(|(index, rule)| (format!("access.rule[{index}].programs"), &rule.programs));
        for (key, list) in [("access.programs".to_owned(), &self.access.programs)].into_iter().chain(rules) {
            for name in list.iter().filter(|name| *name != "*" && !names.contains(name.as_str())) {
                let meant = nearest(name, names.iter().copied());
                let meant = meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                let mut all: Vec<_> = names.iter().copied().collect();
                all.sort_unstable();
                let refusal = Refusal::new(key.clone(), format!("there is no program `{name}`{meant}"));
                refusals.push(refusal.accepting(format!("\"*\" for all, or of {}", all.join(", "))));
            }
        }
    }

    /// Each file that is named is there, and may be read.
    fn check_files(&mut self, refusals: &mut Vec<Refusal>) {
        for (key, path) in self.files() {
            let may_be_read = rustix::fs::access(path.as_path(), rustix::fs::Access::READ_OK);
            let problem = match path.metadata().and_then(|metadata| Ok(may_be_read.map(|()| metadata)?)) {
                Ok(metadata) if !metadata.is_dir() => continue,
                Ok(_) => format!("{} is a folder", path.display()),
                Err(error) => format!("{}: {error}", path.display()),
            };
            let remedy = match key.as_str() {
                "access.passwords" => "a password file; `offload-rt passwd` makes one",
                key if key.starts_with("tls.") => "a PEM file; `offload-rt keygen` makes one",
                _ => "a file that the gateway may read",
            };
            refusals.push(Refusal::new(key, problem).accepting(remedy));
        }
    }

    /// The effective configuration as TOML: each key below its documentation, accepted values and unit. What is
    /// absent or not `given` is shown as a comment. Parses back to the same configuration, on this machine and on
    /// another.
    pub fn to_commented_toml(&self, given: &Given) -> String {
        let sections = self.sections();
        sections.iter().map(|section| section.to_toml(given)).collect::<Vec<_>>().join("\n")
    }

    /// The tables that this configuration has, and the optional ones that it could have.
    fn sections(&self) -> Vec<Section> {
        let broker = self.broker.clone().unwrap_or_default();
        let tls = self.tls.clone().unwrap_or_default();
        let websocket = self.websocket.clone().unwrap_or_default();
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
            Section::of("workers", "[workers]", &self.workers, true),
            Section::of("limits", "[limits]", &self.limits, true),
            Section::of("queue", "[queue]", &self.queue, true),
            Section::of("compiler", "[compiler]", &self.compiler, true),
            Section::of("modules", "[modules]", &self.modules, true),
            Section::of("sandbox", "[sandbox]", &self.sandbox, true),
            Section::of("idempotency", "[idempotency]", &self.idempotency, true),
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
    fn schema() -> Vec<Section> {
        Config::default().sections()
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let mut paths: Vec<&mut PathBuf> = self.files().into_iter().map(|(_, path)| path).collect();
        paths.iter_mut().for_each(|path| **path = folder.join(&**path));
        if !self.data_dir.as_os_str().is_empty() {
            self.data_dir = folder.join(&self.data_dir);
        }
    }

    /// The files that are named, by their keys. An empty path is a missing one, which is refused as such.
    fn files(&mut self) -> Vec<(String, &mut PathBuf)> {
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
        files.extend(self.access.passwords.iter_mut().map(|path| ("access.passwords".to_owned(), path)));
        files.extend(self.compiler.program.iter_mut().map(|path| ("compiler.program".to_owned(), path)));
        files.extend(self.modules.preload.iter_mut().map(|path| ("modules.preload".to_owned(), path)));
        let programs = self.program.iter_mut().enumerate();
        files.extend(programs.map(|(index, program)| (format!("program[{index}].file"), &mut program.file)));
        files.retain(|(_, path)| !path.as_os_str().is_empty());
        files
    }
}

/// Refuses a number that is given and not from 1 to `most`.
fn out_of_range(key: &str, number: Option<usize>, most: usize) -> Option<Refusal> {
    let number = number.filter(|number| !(1..=most).contains(number))?;
    let refusal = Refusal::new(key, format!("{number} is out of range"));
    Some(refusal.accepting(format!("an integer, 1 to {most}")))
}

/// Refuses a time that is no whole number of seconds.
fn fraction_of_seconds(key: &str, time: TimeSpan) -> Option<Refusal> {
    let is_fraction = time.duration().subsec_nanos() != 0;
    let refusal = || Refusal::new(key, format!("{time} is a fraction of seconds")).accepting("whole seconds");
    is_fraction.then(refusal)
}

/// A share in whole percent.
fn percent(share: f64) -> usize {
    (share * 100.0).round() as usize
}

/// The name is a level of a topic, and part of client ids and logs.
fn is_gateway_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests;
