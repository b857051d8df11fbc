//! Status codes of connections and subscriptions: HTTP's numbers (RFC 9110, section 15), which a class knows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a connection or a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub enum Code {
    /// It was asked for, and the answer is not here.
    Waiting,
    /// It stands.
    Ok,
    /// The topic filter is none of MQTT.
    BadTopic,
    /// There is no such subscription.
    NotFound,
    /// The client was silent for longer than it had said.
    Silent,
    /// Its client has ended it.
    Gone,
    /// There is no more room.
    Full,
}

/// Each with its number, a word for tables, and its meaning.
pub const ALL: [(Code, u16, &str, &str); 7] = [
    (Code::Waiting, 100, "waiting", "asked for, not answered yet"),
    (Code::Ok, 200, "OK", "it stands"),
    (Code::BadTopic, 400, "bad topic", "the topic filter is none of MQTT"),
    (Code::NotFound, 404, "not found", "there is no such subscription"),
    (Code::Silent, 408, "silent", "dropped: silent for longer than one and a half keep-alives"),
    (Code::Gone, 410, "gone", "ended by its client"),
    (Code::Full, 507, "full", "no more room"),
];

impl Code {
    /// Its number.
    pub fn number(self) -> u16 {
        self.row().1
    }

    /// Its meaning.
    pub fn meaning(self) -> &'static str {
        self.row().3
    }

    fn row(self) -> (Self, u16, &'static str, &'static str) {
        ALL[self as usize]
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.row().2)
    }
}

impl From<Code> for u16 {
    fn from(code: Code) -> Self {
        code.number()
    }
}

impl TryFrom<u16> for Code {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        let known = ALL.iter().find(|row| row.1 == number);
        known.map(|row| row.0).ok_or_else(|| format!("{number} is no status code"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_own_row() {
        for (code, number, ..) in ALL {
            assert_eq!((code.number(), Code::try_from(number)), (number, Ok(code)));
        }
    }
}
