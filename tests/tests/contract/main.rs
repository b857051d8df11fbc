//! `docs/protocol.md`, line by line, where the guests' cases do not show it: one file a concept, and each test says the
//! line that it is about. `tests/README.md` maps the lines to the tests.

mod answers;
mod envelope_fields;
mod error_kinds;
mod guests;
mod limits;
mod map;
mod packets;
mod request_forms;
mod topics;
