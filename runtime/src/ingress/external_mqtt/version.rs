//! Which version of MQTT the next attempt to connect speaks.

use offload_mqtt::{ConnectionError, Version};

use crate::config::MqttVersion;

/// Attempts in MQTT 5 that end in a way in which only an older broker, or an accident, ends them. One alone may be a
/// broker that was about to stop.
const DOUBTS: u32 = 2;

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

    /// An attempt has failed, or its connection has ended: then there is no error that counts.
    pub fn ended(&mut self, failure: Option<&ConnectionError>) {
        let Some(error) = failure.filter(|_| self.version() == Version::V5) else {
            // Whatever ended a 3.1.1 connection: the broker that comes next may be a newer one.
            self.doubts = 0;
            return;
        };
        self.doubts = match error {
            error if error.is_unsupported_version() => DOUBTS,
            ConnectionError::Protocol { .. } => self.doubts + 1,
            error if error.is_closed() => self.doubts + 1,
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use offload_mqtt::ReasonCode;

    use super::*;

    fn versions(configured: MqttVersion, failures: &[Option<ConnectionError>]) -> Vec<Version> {
        let mut choice = Choice::new(configured);
        let mut versions = vec![choice.version()];
        for failure in failures {
            choice.ended(failure.as_ref());
            versions.push(choice.version());
        }
        versions
    }

    #[test]
    fn an_older_broker_is_spoken_to_in_3_1_1_until_it_goes() {
        use Version::{V5, V311};
        let unsupported = || Some(ConnectionError::Refused(ReasonCode::UnsupportedProtocolVersion.into()));
        let strange = || Some(ConnectionError::Closed);
        let other = || Some(ConnectionError::TimedOut);
        assert_eq!(versions(MqttVersion::Auto, &[unsupported(), other()]), [V5, V311, V5]);
        assert_eq!(versions(MqttVersion::Auto, &[unsupported(), None]), [V5, V311, V5]);
        assert_eq!(versions(MqttVersion::Auto, &[strange(), strange(), strange()]), [V5, V5, V311, V5]);
        assert_eq!(versions(MqttVersion::Auto, &[strange(), other(), strange()]), [V5, V5, V5, V5]);
        assert_eq!(versions(MqttVersion::Auto, &[strange(), None, strange()]), [V5, V5, V5, V5]);
        assert_eq!(versions(MqttVersion::V5, &[unsupported(), strange()]), [V5, V5, V5]);
        assert_eq!(versions(MqttVersion::V311, &[strange(), strange()]), [V311, V311, V311]);
    }
}
