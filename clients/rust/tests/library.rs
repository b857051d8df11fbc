//! The library against a real broker.

mod side;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use offload_client::{
    Answer, Build, Client, Code, Digest, Error, ErrorKind, Form, MqttVersion, Options, Outcome, ReplyForm,
    Request, Source, WireError,
};
use side::{DEADLINE, Gateway, Mosquitto, Road, exited};
use tokio::task::JoinSet;
use tokio::time::timeout;

fn program(args: &[&str]) -> Request {
    Request {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        ..Request::new(Code::Program("echo".into()))
    }
}

#[tokio::test]
async fn many_in_flight_get_each_its_own_answer() {
    const REQUESTS: usize = 300;
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let client = Arc::new(Client::connect(broker.options()).await.unwrap());
    let mut senders = JoinSet::new();
    for number in 0..REQUESTS {
        let client = client.clone();
        senders.spawn(async move {
            let mut request = program(&[&number.to_string()]);
            // Both forms of answer, on one topic.
            request.reply = if number % 2 == 0 { ReplyForm::Envelope } else { ReplyForm::Stdout };
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.stdout, number.to_string());
        });
    }
    let mut deliveries = Vec::new();
    while deliveries.len() < REQUESTS {
        deliveries.push(gateway.next().await);
    }
    for delivery in deliveries.iter().rev() {
        gateway.answer(delivery, exited(0, delivery.request.args[0].clone(), "")).await;
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    Arc::into_inner(client).unwrap().disconnect().await;
}

#[tokio::test]
async fn every_form_of_request_can_be_sent() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let client = Client::connect(broker.options()).await.unwrap();
    let stdout_only = |form, code| Request { form, reply: ReplyForm::Stdout, ..Request::new(code) };
    let module = Request {
        env: vec![("A".into(), "1".into())],
        args: vec!["x y".into()],
        ..stdout_only(Form::RawModule, Code::Module(b"\0asm\x01\0\0\0"[..].into()))
    };
    let args = Request { args: vec!["5".into()], ..stdout_only(Form::LegacyArgs, Code::DefaultProgram) };
    let build = Build::Command("gcc <name>.c -o <name>".into());
    let source = Code::Source(Source { name: "a".into(), text: "int main;".into(), build });
    let text = Request { args: vec!["5".into()], ..stdout_only(Form::LegacyText, source.clone()) };
    let cbor = Request { form: Form::Cbor, stdin: "x".into(), ..Request::new(source) };
    for request in [module, args, text, cbor, program(&["x y", ""])] {
        let (answer, ()) = tokio::join!(client.send(request.clone()), async {
            let delivery = gateway.next().await;
            assert_eq!(delivery.request, request);
            gateway.answer(&delivery, exited(3, "", "")).await;
        });
        assert_eq!(answer.unwrap().outcome, Outcome::Exited(3));
    }
}

#[tokio::test]
async fn in_mqtt_3_1_1_answers_are_known_by_the_id_of_the_envelope() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let road = Road::to(&broker).await;
    let options = Options { mqtt_version: MqttVersion::V311, port: road.port, ..broker.options() };
    let options = Options { answer_timeout: DEADLINE, ..options };
    let client = Client::connect(options).await.unwrap();
    let own_id = Request { id: Some("mine".try_into().unwrap()), ..program(&["1"]) };
    let cbor = Request { form: Form::Cbor, ..program(&["2"]) };
    let raw = Request {
        form: Form::RawModule,
        reply: ReplyForm::Stdout,
        args: vec!["3".into()],
        ..Request::new(Code::Module(b"\0asm\x01\0\0\0"[..].into()))
    };
    let senders = async { tokio::join!(client.send(own_id.clone()), client.send(cbor), client.send(raw)) };
    let gateway = async {
        let mut deliveries = [gateway.next().await, gateway.next().await, gateway.next().await];
        deliveries.sort_by_key(|delivery| delivery.request.args[0].clone());
        let [first, second, third] = &deliveries;
        assert_eq!(first.request, own_id);
        assert_eq!(second.request.form, Form::Cbor);
        assert!(matches!(third.request.code, Code::Digest(_)));
        gateway.answer(third, exited(0, "3", "")).await;
        gateway.answer(second, exited(0, "2", "")).await;
        road.cut();
        // What has no answer comes again; nobody can know which answers got through.
        loop {
            let again = gateway.next().await;
            gateway.answer(&again, exited(0, again.request.args[0].clone(), "")).await;
        }
    };
    let (first, second, third) = tokio::select! {
        answers = senders => answers,
        () = gateway => unreachable!("it goes on"),
    };
    assert_eq!(first.unwrap(), Answer { id: own_id.id.clone(), ..exited(0, "1", "") });
    assert_eq!((second.unwrap(), third.unwrap()), (exited(0, "2", ""), exited(0, "3", "")));
    let default =
        Request { form: Form::LegacyArgs, reply: ReplyForm::Stdout, ..Request::new(Code::DefaultProgram) };
    assert!(
        matches!(client.send(default).await, Err(Error::Request(problem)) if problem.starts_with("program: "))
    );
    client.disconnect().await;
}

#[tokio::test]
async fn a_module_is_sent_only_to_a_gateway_that_does_not_have_it() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let client = Client::connect(broker.options()).await.unwrap();
    let module = Request::new(Code::Module(b"\0asm\x01\0\0\0"[..].into()));
    let failed = |kind, message: &str| Answer::failed(None, WireError::new(kind, message));
    // What the gateway says to the digest, whether the module follows, and whether a digest is sent at all.
    for (answer, module_follows, digest_first) in [
        (exited(3, "known", ""), false, true),
        (failed(ErrorKind::Busy, "later"), false, true),
        (failed(ErrorKind::Malformed, "args: no"), false, true),
        (failed(ErrorKind::NotFound, "no such module"), true, true),
        (failed(ErrorKind::Malformed, "digest: not supported by this gateway yet"), true, true),
        (exited(0, "", ""), true, false),
    ] {
        let (answered, ()) = tokio::join!(client.send(module.clone()), async {
            if digest_first {
                let delivery = gateway.next().await;
                assert!(matches!(delivery.request.code, Code::Digest(_)));
                gateway.answer(&delivery, answer.clone()).await;
            }
            if module_follows {
                let delivery = gateway.next().await;
                assert_eq!(delivery.request, module);
                gateway.answer(&delivery, exited(5, "ran", "")).await;
            }
        });
        let expected = if module_follows { exited(5, "ran", "") } else { answer };
        assert_eq!(answered.unwrap(), expected);
    }
}

#[tokio::test]
async fn each_module_has_its_own_digest_whichever_was_sent_before() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let client = Client::connect(broker.options()).await.unwrap();
    let first = Bytes::from_static(b"\0asm\x01\0\0\0");
    // Of the same length, a part of the same memory, the same memory again, and the same bytes elsewhere.
    let second = Bytes::from_static(b"\0asm\x0d\0\x01\0");
    let elsewhere = Bytes::copy_from_slice(&first);
    for module in [first.clone(), second, first.slice(..4), first.clone(), first, elsewhere] {
        let request = Request::new(Code::Module(module.clone()));
        let (answer, ()) = tokio::join!(client.send(request), async {
            let delivery = gateway.next().await;
            assert_eq!(delivery.request.code, Code::Digest(Digest::of(&module)));
            gateway.answer(&delivery, exited(0, "", "")).await;
        });
        answer.unwrap();
    }
}

#[tokio::test]
async fn what_has_no_answer_is_sent_again_after_the_broker_was_restarted() {
    let mut broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let client = Client::connect(broker.options()).await.unwrap();
    let (first, second) = (program(&["1"]), program(&["2"]));
    let (first, second, ()) = tokio::join!(client.send(first), client.send(second), async {
        let (delivery, _) = (gateway.next().await, gateway.next().await);
        gateway.answer(&delivery, exited(0, "before", "")).await;
        broker.restart().await;
        loop {
            let delivery = gateway.next().await;
            gateway.answer(&delivery, exited(0, "after", "")).await;
            // The first may come again: nobody can know whether its answer got through.
            if delivery.request.args[0] == "2" {
                break;
            }
        }
    });
    assert!(["before", "after"].contains(&str::from_utf8(&first.unwrap().stdout).unwrap()));
    assert_eq!(second.unwrap().stdout, "after");
}

#[tokio::test]
async fn an_answer_that_comes_while_the_connection_is_lost_is_kept_by_the_session() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let road = Road::to(&broker).await;
    let options = Options { port: road.port, answer_timeout: DEADLINE, ..broker.options() };
    let client = Client::connect(options).await.unwrap();
    let (first, second, ()) =
        tokio::join!(client.send(program(&["1"])), client.send(program(&["2"])), async {
            let deliveries = [gateway.next().await, gateway.next().await];
            road.cut();
            // Once each: what is sent again is not answered.
            for delivery in deliveries {
                gateway.answer(&delivery, exited(0, delivery.request.args[0].clone(), "")).await;
            }
        });
    assert_eq!((first.unwrap().stdout, second.unwrap().stdout), ("1".into(), "2".into()));
}

#[tokio::test]
async fn without_a_gateway_nobody_waits() {
    let broker = Mosquitto::start().await;
    let client = Client::connect(broker.options()).await.unwrap();
    assert!(matches!(client.send(program(&[])).await, Err(Error::NoGateway)));
}

#[tokio::test]
async fn a_request_larger_than_the_broker_takes_is_not_sent() {
    let broker = Mosquitto::start_with("allow_anonymous true\nmax_packet_size 20000").await;
    let mut gateway = Gateway::start(&broker).await;
    let client = Client::connect(broker.options()).await.unwrap();
    let large = "x".repeat(20_000);
    let error = client.send(program(&[&large])).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size, limit: 20_000 } if size > 20_000), "{error}");
    // The largest that is taken: what is measured is what is sent.
    let overhead = match client.send(program(&[&large])).await {
        Err(Error::TooLarge { size, .. }) => size - large.len(),
        other => panic!("{other:?}"),
    };
    let (answer, ()) = tokio::join!(client.send(program(&[&large[overhead..]])), async {
        let delivery = gateway.next().await;
        gateway.answer(&delivery, exited(0, "", "")).await;
    });
    assert_eq!(answer.unwrap().outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn a_caller_that_gives_up_makes_room_for_another() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let client = Client::connect(Options { max_in_flight: 1, ..broker.options() }).await.unwrap();
    let delivery = tokio::select! {
        _ = client.send(program(&["given up"])) => panic!("nobody answered"),
        delivery = gateway.next() => delivery,
    };
    gateway.answer(&delivery, exited(0, "late", "")).await;
    let (answer, ()) = tokio::join!(client.send(program(&["second"])), async {
        let delivery = gateway.next().await;
        gateway.answer(&delivery, exited(0, "second", "")).await;
    });
    assert_eq!(answer.unwrap().stdout, "second");
}

#[tokio::test]
async fn no_wait_is_endless() {
    let broker = Mosquitto::start().await;
    let _gateway = Gateway::start(&broker).await;
    let grace = Duration::from_millis(50);
    let client = Client::connect(Options { transport_grace: grace, ..broker.options() }).await.unwrap();
    let mut request = program(&[]);
    request.limits.timeout = Some(Duration::from_millis(1));
    let error = timeout(DEADLINE, client.send(request)).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no answer within 51 ms");
    assert_eq!(error.kind(), "timeout");
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let client = Client::connect(broker.options()).await.unwrap();
    let (answer, ()) = tokio::join!(client.send(program(&[])), async {
        let delivery = gateway.next().await;
        gateway.publish(&delivery, "{}".into(), Vec::new()).await;
    });
    assert!(matches!(answer, Err(Error::Answer(_))));
}

#[tokio::test]
async fn two_clients_of_one_id_do_not_evict_each_other_for_ever() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let options = Options { client_id: "twin".into(), ..broker.options() };
    let first = Client::connect(options.clone()).await.unwrap();
    let (waiting, second) = tokio::join!(first.send(program(&["first"])), async {
        gateway.next().await;
        Client::connect(options.clone()).await.unwrap()
    });
    assert!(matches!(waiting, Err(Error::Closed(_))));
    assert!(matches!(first.send(program(&[])).await, Err(Error::Closed(_))));
    // Mosquitto does not say why it closes a connection: they try a few times, the first sends its request each time.
    let (answer, ()) = tokio::join!(second.send(program(&["second"])), async {
        let delivery = loop {
            let delivery = gateway.next().await;
            if delivery.request.args[0] == "second" {
                break delivery;
            }
        };
        gateway.answer(&delivery, exited(0, "", "")).await;
    });
    assert!(answer.is_ok());
}

#[tokio::test]
async fn a_connection_that_is_not_to_be_had_is_an_error() {
    let broker = Mosquitto::start_with("allow_anonymous false").await;
    for mqtt_version in [MqttVersion::V311, MqttVersion::V5] {
        let error = Client::connect(Options { mqtt_version, ..broker.options() }).await.err().unwrap();
        assert!(matches!(error, Error::Unauthorized(_)), "{error}");
    }
    let options = broker.options();
    drop(broker);
    let refused = async {
        loop {
            match Client::connect(options.clone()).await {
                // The killed broker may take a moment to go.
                Err(Error::Connect { reason, .. }) if reason.starts_with("connection refused") => {
                    return reason;
                }
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let reason = timeout(DEADLINE, refused).await.unwrap();
    assert_eq!(reason, "connection refused: is the gateway running? `offload-rt serve` starts one");
}
