//! What no gateway could run with, whatever the values are that go together.

use super::table::nearest;
use super::{Access, BUILT_IN, Config, HostPort, Refusal, defaults};
use std::collections::HashSet;

impl Config {
    /// Finds what no gateway could run with.
    pub(super) fn check(&mut self, refusals: &mut Vec<Refusal>) {
        if !defaults::is_gateway_name(&self.name) {
            let problem = format!("{:?} is no gateway name", self.name);
            refusals.push(Refusal::new("name", problem).accepting("1 to 64 of `A-Z a-z 0-9 . _ -`"));
        }
        if self.data_dir.as_os_str().is_empty() {
            let problem = "no default: there is neither $XDG_STATE_HOME nor a home directory";
            refusals.push(Refusal::new("data_dir", problem).accepting("a folder, or --data-dir DIR"));
        }
        match &self.broker {
            Some(broker) => {
                broker.check(refusals);
                self.nats.check(refusals);
            }
            None => self.check_embedded(refusals),
        }
        if let Some(tls) = &self.tls {
            tls.check(refusals);
        }
        if let Some(websocket) = &self.websocket {
            websocket.check(self.tls.is_some(), refusals);
        }
        if let Some(network) = &self.network {
            network.check(refusals);
        }
        if let Some(master) = &self.master {
            master.check(refusals);
        }
        self.workers.check(refusals);
        self.limits.check(refusals);
        self.compiler.check(refusals);
        self.sandbox.check(refusals);
        for (index, max) in self.answers.max.iter().enumerate() {
            max.check(&format!("answers.max[{index}]"), refusals);
        }
        self.check_programs(refusals);
    }

    /// Checks of the embedded broker alone: its addresses differ, and clients from other machines are identified.
    fn check_embedded(&self, refusals: &mut Vec<Refusal>) {
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
                "no client could connect: neither `access.passwords` nor `tls.client_ca` identifies clients";
            let refusal = Refusal::new("access.anonymous", problem).beside("access.passwords");
            refusals.push(refusal.accepting(format!("true, or {remedies}")));
        }
        if knows_nobody && *anonymous != Some(true) {
            for (key, address) in all.iter().filter(|(_, address)| address.is_exposed()) {
                let problem = format!(
                    "any client could use {address}: neither `access.passwords` nor `tls.client_ca` identifies clients"
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
        let mut names = HashSet::from([BUILT_IN]);
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
    pub(super) fn check_files(&mut self, refusals: &mut Vec<Refusal>) {
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
}
