//! Devices that have QoS 0 alone and 256 bytes for a packet, by the profile of `docs/devices/qos0.md`: an envelope with
//! an `id` is repeated until it is answered, and a long answer is fetched in pieces.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Message, Version};
use offload_tests::pub_sub_client::{BUFFER, PubSubClient, Received};
use offload_tests::{PATIENCE, built, cbor, envelope, on_each_broker};
use serde_json::{Value, json};
use tokio::time::Instant;

on_each_broker! {
    a_lost_request_is_repeated with &configuration()?,
    a_lost_answer_is_asked_for_again with &configuration()?,
    a_long_answer_is_fetched_in_pieces with &configuration()?,
    packets_have_the_documented_sizes with &configuration()?,
}

/// How long a device waits for an answer before it repeats its request.
const REPEAT: Duration = Duration::from_secs(2);

/// Where packets are documented.
const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/devices/qos0.md");

fn configuration() -> Result<String> {
    Ok(format!(
        "[[program]]\nname = \"add\"\nfile = {:?}\ndefault = true\n[[program]]\nname = \"primes\"\nfile = {:?}\n",
        built::guest("add")?,
        built::guest("primes")?
    ))
}

/// The encodings of an envelope.
#[derive(Clone, Copy, Debug)]
enum Encoding {
    Json,
    Cbor,
}

impl Encoding {
    const ALL: [Encoding; 2] = [Encoding::Json, Encoding::Cbor];

    fn write(self, request: &Value) -> Result<Vec<u8>> {
        match self {
            Encoding::Json => Ok(request.to_string().into_bytes()),
            Encoding::Cbor => cbor::write(request),
        }
    }

    fn read(self, message: &Message) -> Result<Value> {
        match self {
            Encoding::Json => envelope::read(message),
            Encoding::Cbor => cbor::read(message),
        }
    }
}

/// What the device does: publishes, waits a while, and publishes again, until an answer with this `id` and the offset
/// that was asked for has come. Returns it with the bytes of its packet.
async fn ask_until_answered(
    device: &mut PubSubClient,
    topic: &str,
    request: &Value,
    encoding: Encoding,
) -> Result<(Message, Value, usize)> {
    let payload = encoding.write(request)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        device.publish(topic, &payload).await?;
        let repeat = Instant::now() + REPEAT;
        // Only the wait for a packet is given up: one that has begun is read to its end.
        while device.has_some(repeat).await? {
            let Received::Message(message, size) = device.receive().await? else { continue };
            let answer = encoding.read(&message)?;
            if answer["id"] == request["id"] && answer["stdout_offset"] == request["stdout_offset"] {
                return Ok((message, answer, size));
            }
        }
    }
    bail!("no answer to {request}")
}

/// A request that breaks off with its connection is no request. Its repetition is one, and so is each further one the
/// same.
async fn a_lost_request_is_repeated(deployment: Deployment) -> Result<()> {
    let request = json!({ "id": "1", "program": "add", "args": ["5", "7"] });
    for encoding in Encoding::ALL {
        let name = format!("lost-{encoding:?}").to_lowercase();
        let topic = format!("localCode/{name}");
        PubSubClient::connect(deployment.address(), &name)
            .await?
            .lose(&topic, &encoding.write(&request)?)
            .await?;
        let mut device = PubSubClient::connect(deployment.address(), &name).await?;
        let (first, answer, _) = ask_until_answered(&mut device, &topic, &request, encoding).await?;
        assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"12\n");
        for _ in 0..3 {
            let (again, ..) = ask_until_answered(&mut device, &topic, &request, encoding).await?;
            assert_eq!(again.payload, first.payload, "down to the microseconds");
        }
    }
    Ok(())
}

/// The device is away when its answer comes, and gets the same bytes when it asks again.
async fn a_lost_answer_is_asked_for_again(deployment: Deployment) -> Result<()> {
    let mut bystander = deployment.device(Version::V311, "away").await?;
    let request = json!({ "id": "1", "program": "primes", "args": ["30"] });
    for (number, encoding) in Encoding::ALL.into_iter().enumerate() {
        let mut request = request.clone();
        request["id"] = number.to_string().into();
        let mut device = PubSubClient::connect(deployment.address(), "small").await?;
        device.publish("localCode/away", &encoding.write(&request)?).await?;
        drop(device);
        // Its answer is there for whoever is; the one before was given more than once.
        let is_lost_one =
            |message: &Message| encoding.read(message).is_ok_and(|answer| answer["id"] == request["id"]);
        let mut lost = bystander.message().await?;
        while !is_lost_one(&lost) {
            lost = bystander.message().await?;
        }

        let mut device = PubSubClient::connect(deployment.address(), "away-again").await?;
        device.listen("result/away").await?;
        let (again, ..) = ask_until_answered(&mut device, "localCode/away", &request, encoding).await?;
        assert_eq!(again.payload, lost.payload, "down to the microseconds");
    }
    Ok(())
}

/// Ten thousand bytes by packets of 256: a piece at a time, each repeated until it is there.
async fn a_long_answer_is_fetched_in_pieces(deployment: Deployment) -> Result<()> {
    for (encoding, name, length) in [(Encoding::Cbor, "c", 100), (Encoding::Json, "j", 48)] {
        let topic = format!("localCode/{name}");
        let mut device = PubSubClient::connect(deployment.address(), name).await?;
        let mut request = json!({ "id": "1", "program": "primes", "args": ["17000"] });
        // The whole does not fit: the library drops it.
        device.publish(&topic, &encoding.write(&request)?).await?;
        let Received::Dropped(size) = device.receive().await? else { bail!("it fits") };
        ensure!(size > 10_000, "{size}");

        request["stdout_length"] = length.into();
        let (mut stdout, mut runs) = (Vec::new(), Vec::new());
        loop {
            request["stdout_offset"] = stdout.len().into();
            // An answer that is lost now and then, and comes after its repetition, is another piece's.
            if stdout.len() % 700 == 0 {
                device.publish(&topic, &encoding.write(&request)?).await?;
            }
            let (_, answer, size) = ask_until_answered(&mut device, &topic, &request, encoding).await?;
            ensure!(size <= BUFFER, "{size}");
            runs.push(answer["run_us"].clone());
            stdout.extend(envelope::bytes_of(&answer, "stdout")?);
            if answer["stdout_total"] == stdout.len() {
                break;
            }
        }
        runs.dedup();
        assert_eq!(runs.len(), 1, "one run");
        let mut large = deployment.device(Version::V311, name).await?;
        let whole = json!({ "id": "1", "program": "primes", "args": ["17000"], "reply": "stdout" });
        assert_eq!(stdout, large.ask(&topic, whole.to_string()).await?.payload);
        assert!(stdout.starts_with(b"2\n3\n5\n7\n11\n") && stdout.ends_with(b"16993\n"));
    }
    Ok(())
}

/// What the profile says of `add`: bytes of the whole packets. Fuel and times are counted at their largest there.
async fn packets_have_the_documented_sizes(deployment: Deployment) -> Result<()> {
    let profile = fs::read_to_string(PROFILE).context(PROFILE)?;
    let mut device = PubSubClient::connect(deployment.address(), "dev1").await?;
    let request = json!({ "id": "1", "program": "add", "args": ["5", "7"] });
    let mut piece = request.clone();
    piece["stdout_offset"] = 10_000.into();
    piece["stdout_length"] = 60.into();
    let [mut requests, mut answers, mut pieces, mut empty_pieces] = [(); 4].map(|()| Vec::new());
    for encoding in Encoding::ALL {
        let mut request = request.clone();
        let mut piece = piece.clone();
        let id = format!("{}", requests.len());
        request["id"] = id.clone().into();
        piece["id"] = id.into();
        requests.push(device.publish("localCode/dev1", &encoding.write(&request)?).await?);
        let Received::Message(message, size) = device.receive().await? else { bail!("dropped") };
        answers.push(longer(size, largest_numbers(encoding, &encoding.read(&message)?)));
        pieces.push(device.publish("localCode/dev1", &encoding.write(&piece)?).await?);
        let Received::Message(message, size) = device.receive().await? else { bail!("dropped") };
        let answer = encoding.read(&message)?;
        // Of an answer with ten thousand bytes, whose total has five digits.
        let total = match encoding {
            Encoding::Json => "10000".len() - "3".len(),
            Encoding::Cbor => 2,
        };
        empty_pieces.push(longer(size, total + largest_numbers(encoding, &answer)));
    }
    for (what, [json, cbor]) in [
        ("request", [requests[0], requests[1]]),
        ("answer", [answers[0], answers[1]]),
        ("request for a piece", [pieces[0], pieces[1]]),
        ("answer with a piece, without its bytes", [empty_pieces[0], empty_pieces[1]]),
    ] {
        let row = format!("| {what} | {json} | {cbor} |");
        ensure!(profile.contains(&row), "{PROFILE} has no line\n{row}");
    }
    Ok(())
}

/// Bytes by which the answer would be longer if its numbers had seven digits each: ten seconds in microseconds.
fn largest_numbers(encoding: Encoding, answer: &Value) -> usize {
    let shorter = |number: u64| match encoding {
        Encoding::Json => 7 - number.to_string().len(),
        // One byte, and one, two or four more (RFC 8949, section 3).
        Encoding::Cbor => match number {
            0..24 => 4,
            24..0x100 => 3,
            0x100..0x1_0000 => 2,
            _ => 0,
        },
    };
    ["fuel", "run_us", "queue_us"].into_iter().filter_map(|name| answer[name].as_u64()).map(shorter).sum()
}

/// Bytes of a packet whose body has this many more: its length takes two bytes from 128 on.
fn longer(size: usize, more: usize) -> usize {
    let header = |body: usize| if body < 128 { 2 } else { 3 };
    let body = if size < 2 + 128 { size - 2 } else { size - 3 } + more;
    header(body) + body
}
