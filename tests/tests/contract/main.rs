//! `docs/protocol.md`, line by line, where the guests' cases do not show it: one file a concept, and each test says the
//! line that it is about. `tests/README.md` maps the lines to the tests.

/// The same test on the gateway's own broker and on Mosquitto, with the `CONFIGURATION` of its file.
macro_rules! on_each_broker {
    ($($name:ident)*) => {
        $(mod $name {
            use offload_tests::deployment::Deployment;

            #[tokio::test]
            async fn on_the_embedded_broker() -> anyhow::Result<()> {
                super::$name(&Deployment::embedded(super::CONFIGURATION).await?).await
            }

            #[tokio::test]
            async fn on_mosquitto() -> anyhow::Result<()> {
                super::$name(&Deployment::on_mosquitto(super::CONFIGURATION).await?).await
            }
        })*
    };
}

mod answers;
mod envelope_fields;
mod error_kinds;
mod guests;
mod limits;
mod map;
mod packets;
mod request_forms;
mod topics;
