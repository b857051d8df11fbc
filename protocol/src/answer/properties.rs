//! The user properties that every answer carries in MQTT 5, whatever its form.

use super::{Answer, Outcome, Status};
use crate::UserProperties;
use crate::error::{ErrorKind, WireError};
use crate::request::RequestId;

const STATUS: &str = "status";
const EXIT_CODE: &str = "exit-code";
const ERROR_KIND: &str = "error-kind";
const FUEL: &str = "fuel";
const RUN_US: &str = "run-us";
const ID: &str = "id";

/// Writes them. `error_line` says that an error line stands in for an empty stdout.
pub(super) fn encode(answer: &Answer, error_line: bool) -> UserProperties {
    let mut written = UserProperties::with_capacity(6);
    let mut push = |name: &str, value: String| written.push((name.to_owned(), value));
    push(STATUS, Status::of(&answer.outcome).as_str().to_owned());
    match &answer.outcome {
        Outcome::Exited(code) => {
            push(EXIT_CODE, code.to_string());
            if error_line {
                push(ERROR_KIND, ErrorKind::Exit.to_string());
            }
        }
        Outcome::Failed(error) => push(ERROR_KIND, error.kind.to_string()),
    }
    push(FUEL, answer.fuel.to_string());
    push(RUN_US, answer.run_us.to_string());
    // Control characters, which an envelope may well carry, make an MQTT packet malformed (MQTT 5, section 1.5.4).
    if let Some(id) = &answer.id
        && !id.as_str().contains(char::is_control)
    {
        push(ID, id.to_string());
    }
    written
}

/// What an answer's user properties say.
pub(super) struct Properties<'p> {
    pub(super) status: Status,
    pub(super) exit_code: Option<i32>,
    pub(super) error_kind: Option<ErrorKind>,
    pub(super) fuel: u64,
    pub(super) run_us: u64,
    pub(super) id: Option<&'p str>,
}

/// Reads them; `None` if there is no `status` among them.
pub(super) fn decode(user_properties: &[(String, String)]) -> Result<Option<Properties<'_>>, WireError> {
    let find =
        |name: &str| user_properties.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str());
    let Some(status) = find(STATUS) else { return Ok(None) };
    Ok(Some(Properties {
        status: Status::parse(status)?,
        exit_code: parsed(EXIT_CODE, find(EXIT_CODE))?,
        error_kind: parsed(ERROR_KIND, find(ERROR_KIND))?,
        fuel: parsed(FUEL, find(FUEL))?.unwrap_or(0),
        run_us: parsed(RUN_US, find(RUN_US))?.unwrap_or(0),
        id: find(ID),
    }))
}

fn parsed<T: std::str::FromStr>(name: &str, value: Option<&str>) -> Result<Option<T>, WireError> {
    value.map(|value| value.parse().map_err(|_| WireError::malformed(name, "unexpected value"))).transpose()
}

/// The id that an answer echoes.
pub(super) fn echoed_id(id: Option<&str>) -> Result<Option<RequestId>, WireError> {
    id.map(RequestId::try_from).transpose()
}
