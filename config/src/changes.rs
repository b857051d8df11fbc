//! What of another configuration a gateway that runs can take over.

use super::Config;
use super::section::Section;
use std::collections::BTreeMap;

impl Config {
    /// This configuration, with which a gateway was started, and in it all of `new` that can change while it runs:
    /// rules, programs, preloaded modules, what requests are held to, where answers go, and the time to drain.
    ///
    /// The workers' memory is laid out for the limits of the start: those on memory and tables can become lower and not
    /// higher than that.
    pub fn reloaded(&self, new: &Config) -> Config {
        let mut config = self.clone();
        config.access = new.access.clone();
        // Whether strangers are let in decides where it may listen, which was decided.
        config.access.passwords.clone_from(&self.access.passwords);
        config.access.anonymous = self.access.anonymous;
        config.program.clone_from(&new.program);
        config.modules.preload.clone_from(&new.modules.preload);
        config.limits = new.limits.clone();
        config.limits.memory = new.limits.memory.min(self.limits.memory);
        config.limits.table_elements = new.limits.table_elements.min(self.limits.table_elements);
        config.answers = new.answers.clone();
        config.drain = new.drain;
        config.keys.grace = new.keys.grace;
        config
    }

    /// The keys whose values are not the same in `other`: `limits.fuel`, `program[1].name`.
    pub fn differences(&self, other: &Config) -> Vec<String> {
        let (ours, mut theirs) = (values(self), values(other));
        let mut different: Vec<String> = ours
            .into_iter()
            .filter(|(key, value)| theirs.remove(key).as_ref() != Some(value))
            .map(|(key, _)| key)
            .collect();
        different.extend(theirs.into_keys());
        different.sort();
        different
    }
}

/// All keys of the tables that are there.
fn values(config: &Config) -> BTreeMap<String, Option<String>> {
    let values = |section: Section| {
        let keys = section.keys.iter().map(|key| (section.key(key.name), key.value.clone()));
        keys.collect::<Vec<_>>()
    };
    config.sections().into_iter().filter(|section| section.present).flat_map(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_can_change_is_taken_and_the_rest_is_named() {
        let started = config(
            "[limits]\nfuel = 1000\nmemory = \"32MiB\"\n[[program]]\nname = \"sort\"\nfile = \"sort.wat\"",
        );
        let new = config(
            r##"
            data_dir = "/elsewhere"
            drain = "3s"
            [listen]
            address = "127.0.0.1:2883"
            [access]
            anonymous = true
            [[access.rule]]
            users = ["panel"]
            [limits]
            fuel = 2000
            memory = "64MiB"
            "##,
        );
        let reloaded = started.reloaded(&new);
        assert_eq!((reloaded.limits.fuel, reloaded.limits.memory), (2000, started.limits.memory));
        assert_eq!((reloaded.drain, reloaded.access.rule.len(), reloaded.program.len()), (new.drain, 1, 0));
        let changed = started.differences(&reloaded);
        for key in ["drain", "limits.fuel", "access.rule[0].users", "program[0].name"] {
            assert!(changed.iter().any(|changed| changed == key), "{key} {changed:?}");
        }
        assert!(!changed.iter().any(|key| key.starts_with("listen")), "{changed:?}");
        let restart = reloaded.differences(&new);
        assert_eq!(restart, ["access.anonymous", "data_dir", "limits.memory", "listen.address"]);
    }

    #[test]
    fn a_lower_limit_can_be_raised_again_up_to_that_of_the_start() {
        let (started, low) = (config(""), config("[limits]\nmemory = \"1MiB\"\ntable_elements = 10"));
        assert_eq!(started.reloaded(&low).limits, low.limits);
        assert_eq!(started.reloaded(&config("")), started);
        assert!(started.differences(&started).is_empty());
    }

    #[test]
    fn a_table_that_is_new_needs_a_restart() {
        let (started, new) = (config(""), config("[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\""));
        let restart = started.reloaded(&new).differences(&new);
        assert!(restart.contains(&"tls.certificate".to_owned()), "{restart:?}");
        assert!(new.differences(&started).contains(&"tls.key".to_owned()));
    }
}
