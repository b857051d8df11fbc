//! Which version of MQTT the next attempt to connect speaks.

use super::link::Failure;
use crate::config::MqttVersion;

/// Attempts in MQTT 5 that end in a way in which only an older broker, or an accident, ends them. One alone may be a
/// broker that was about to stop.
const DOUBTS: u32 = 2;

/// A version that can be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Version::V5 => "MQTT 5",
            Version::V311 => "MQTT 3.1.1",
        })
    }
}

/// Chooses the version: 5, unless the configuration or the broker wants 3.1.1.
#[derive(Debug)]
pub(super) struct Choice {
    configured: MqttVersion,
    doubts: u32,
}

impl Choice {
    pub fn new(configured: MqttVersion) -> Choice {
        Choice { configured, doubts: 0 }
    }

    pub fn version(&self) -> Version {
        match self.configured {
            MqttVersion::V5 => Version::V5,
            MqttVersion::V311 => Version::V311,
            MqttVersion::Auto if self.doubts >= DOUBTS => Version::V311,
            MqttVersion::Auto => Version::V5,
        }
    }

    /// An attempt, or the connection that it led to, ended with `failure`.
    pub fn ended(&mut self, failure: &Failure) {
        self.doubts = match failure {
            Failure::UnsupportedVersion if self.version() == Version::V5 => DOUBTS,
            Failure::Handshake(_) if self.version() == Version::V5 => self.doubts + 1,
            // Whatever ended a 3.1.1 connection: the broker that comes next may be a newer one.
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(configured: MqttVersion, failures: &[Failure]) -> Vec<Version> {
        let mut choice = Choice::new(configured);
        let mut versions = vec![choice.version()];
        for failure in failures {
            choice.ended(failure);
            versions.push(choice.version());
        }
        versions
    }

    #[test]
    fn an_older_broker_is_spoken_to_in_3_1_1_until_it_goes() {
        use Version::{V5, V311};
        let strange = || Failure::Handshake("closed".to_owned());
        let lost = || Failure::Lost("reset".to_owned());
        assert_eq!(versions(MqttVersion::Auto, &[Failure::UnsupportedVersion, lost()]), [V5, V311, V5]);
        assert_eq!(versions(MqttVersion::Auto, &[strange(), strange(), strange()]), [V5, V5, V311, V5]);
        assert_eq!(versions(MqttVersion::Auto, &[strange(), lost(), strange()]), [V5, V5, V5, V5]);
        assert_eq!(versions(MqttVersion::V5, &[Failure::UnsupportedVersion, strange()]), [V5, V5, V5]);
        assert_eq!(versions(MqttVersion::V311, &[strange(), strange()]), [V311, V311, V311]);
    }
}
