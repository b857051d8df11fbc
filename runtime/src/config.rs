//! The gateway's configuration: one typed tree, one file a table, whose defaults are its documentation.
//!
//! Without a file every value is its default. A file names only what differs; a key that does not exist, a
//! wrong unit or an impossible value is refused with its place in the file and with what would be accepted.

mod access;
mod answers;
mod broker;
mod compiler;
mod defaults;
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
pub use error::{ConfigError, Place, Refusal};
pub use host_port::HostPort;
pub use idempotency::Idempotency;
pub use limits::Limits;
pub use listen::Listen;
pub use mirror::Mirror;
pub use modules::Modules;
pub use native::{Native, Sandbox};
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

use locate::Document;
use table::{Key, Table, table};

/// Most bytes of a configuration file: a file given by mistake is refused before it fills the memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

table! {
    /// Configuration of offload-rt. Sizes are written "64MiB" or "64KB" (plain integers are bytes), times "10s",
    /// "500ms" or "250us". Relative paths are relative to the folder that this file is in.
    pub struct Config {
        /// The gateway's name, in its status topic `gateway/<name>/status`: 1 to 64 of `A-Z a-z 0-9 . _ -`.
        /// Default: the host's name.
        pub name: String = defaults::name();
        /// Folder for what outlives the process; one gateway at a time uses it. Default:
        /// $XDG_STATE_HOME/offload-rt or ~/.local/state/offload-rt; for root /var/lib/offload-rt.
        pub data_dir: PathBuf = defaults::data_dir();
        /// Longest time that running requests get to finish when the gateway is told to stop.
        pub drain: TimeSpan = TimeSpan::secs(10), in TimeSpan::ZERO..=TimeSpan::secs(3600);
        /// What becomes of source that requests carry. "native": it is built and run in a sandbox. "wasm": it is built for
        /// WASI there and runs as any module, where clang and wasi-libc are installed; what needs a `long` of 64 bits
        /// then has other results. "compare": "native", and each difference to "wasm" is logged. "auto": "native" where
        /// this gateway's own broker listens on loopback alone.
        pub native: Native = Native::Auto;
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
    /// Reads and validates `path`. Relative paths in it are relative to the folder that it is in.
    ///
    /// # Errors
    /// When the file cannot be read, is larger than [`MAX_FILE_BYTES`], or holds anything that is refused.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let unreadable = |error| ConfigError::Read { path: path.to_owned(), error };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), size, max: MAX_FILE_BYTES });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Config::parse(&text, folder).map_err(|refusal| ConfigError::Refused(refusal.in_file(path, &text)))
    }

    /// Parses `text`; relative paths in it are relative to `folder`.
    fn parse(text: &str, folder: &Path) -> Result<Config, Refusal> {
        let document = Document::parse(text)?;
        document.refuse_unknown_keys(&Config::schema())?;
        let mut config: Config = toml::from_str(text).map_err(|error| {
            let key = error.span().and_then(|span| document.key_at(span.start)).unwrap_or_default();
            let accepted = Config::schema().into_iter().find_map(|section| section.accepts(&key));
            Refusal { accepted, span: error.span(), ..Refusal::new(key, error.message()) }
        })?;
        config.resolve_paths(folder);
        config.validate().map_err(|refusal| Refusal { span: document.span_of(&refusal.key), ..refusal })?;
        Ok(config)
    }

    /// Refuses what no gateway could run with. To be called again after values were changed in code.
    ///
    /// # Errors
    /// Names the key, what is wrong with its value, and what is accepted; the place in the file is added by
    /// [`Config::load`].
    pub fn validate(&self) -> Result<(), Refusal> {
        for section in self.sections().iter().filter(|section| section.present) {
            if let Some(key) = section.keys.iter().find(|key| !key.in_range) {
                let value = key.value.as_deref().unwrap_or_default();
                let refusal = Refusal::new(section.key(key.name), format!("{value} is out of range"));
                return Err(refusal.accepting(key.accepts.clone()));
            }
        }
        if !is_gateway_name(&self.name) {
            let problem = format!("{:?} is no gateway name", self.name);
            return Err(Refusal::new("name", problem).accepting("1 to 64 of `A-Z a-z 0-9 . _ -`"));
        }
        if let Some(broker) = &self.broker {
            broker.validate()?;
        }
        if let Some(tls) = &self.tls {
            tls.validate()?;
        }
        if let Some(websocket) = &self.websocket {
            websocket.validate(self.tls.is_some())?;
        }
        let has_certificates = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if self.access.anonymous == Some(false) && self.access.passwords.is_none() && !has_certificates {
            let problem = "nobody could come in: nothing tells who a client is";
            let accepted = "true, or `access.passwords`, or `tls.client_ca`";
            return Err(Refusal::new("access.anonymous", problem).accepting(accepted));
        }
        for (index, rule) in self.access.rule.iter().enumerate() {
            rule.validate(&format!("access.rule[{index}]"))?;
        }
        self.workers.validate()?;
        self.limits.validate()?;
        self.queue.validate()?;
        self.compiler.validate()?;
        self.sandbox.validate()?;
        self.modules.validate()?;
        for (index, max) in self.answers.max.iter().enumerate() {
            max.validate(&format!("answers.max[{index}]"))?;
        }
        self.validate_programs()
    }

    fn validate_programs(&self) -> Result<(), Refusal> {
        let mut names = HashSet::new();
        let mut default: Option<&str> = None;
        for (index, program) in self.program.iter().enumerate() {
            let path = format!("program[{index}]");
            program.validate(&path)?;
            if !names.insert(&program.name) {
                let problem = format!("there are two programs called `{}`", program.name);
                return Err(Refusal::new(format!("{path}.name"), problem).accepting("a name of its own"));
            }
            if program.default {
                if let Some(first) = default {
                    let problem = format!("`{first}` is the default program already");
                    return Err(Refusal::new(format!("{path}.default"), problem)
                        .accepting("true for one program at most"));
                }
                default = Some(&program.name);
            }
        }
        Ok(())
    }

    /// The effective configuration as TOML: each key below its documentation, accepted values and unit. What is
    /// absent is shown as a comment. Parses back to the same configuration.
    pub fn to_commented_toml(&self) -> String {
        let sections = self.sections();
        sections.iter().map(Section::to_toml).collect::<Vec<_>>().join("\n")
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
        let broker = self.broker.iter_mut().flat_map(|broker| {
            let Broker { password_file, cafile, cert, key, .. } = broker;
            [password_file, cafile, cert, key].into_iter().flatten()
        });
        let programs = self.program.iter_mut().map(|program| &mut program.file);
        let tls = self.tls.iter_mut().flat_map(|tls| {
            [Some(&mut tls.certificate), Some(&mut tls.key), tls.client_ca.as_mut()].into_iter().flatten()
        });
        let paths = programs
            .chain(broker)
            .chain(&mut self.access.passwords)
            .chain(tls)
            .chain(&mut self.compiler.program)
            .chain(&mut self.modules.preload)
            .chain([&mut self.data_dir]);
        // An empty path is a missing one, and is refused as such.
        for path in paths.filter(|path| !path.as_os_str().is_empty()) {
            *path = folder.join(&*path);
        }
    }
}

/// Refuses a number that is given and not from 1 to `most`.
fn in_range(key: &str, number: Option<usize>, most: usize) -> Result<(), Refusal> {
    match number {
        Some(number) if !(1..=most).contains(&number) => {
            let problem = format!("{number} is out of range");
            Err(Refusal::new(key, problem).accepting(format!("an integer, 1 to {most}")))
        }
        _ => Ok(()),
    }
}

/// The name is a level of a topic, and part of client ids and logs.
fn is_gateway_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests;
