//! `ls`, `push` and `rm`, and what the library offers for them, against a real broker.

mod side;

use std::fs;
use std::time::{Duration, SystemTime};

use offload_client::{
    Answer, Client, Code, Digest, Error, ErrorKind, ModulesRequest, MqttVersion, Options, StoredModule,
    WireError, encode_list,
};
use side::{Gateway, Mosquitto, command, exited, output};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn stored(first: u8, second: u8, age: Duration) -> StoredModule {
    let mut digest = [0x11; 32];
    (digest[0], digest[1]) = (first, second);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    StoredModule { digest: Digest(digest), bytes: 5000, last_used: (now - age).as_millis() as u64 }
}

/// Runs the command while the gateway gives one answer after another; returns what it was asked for, and what the
/// command said.
async fn run(
    broker: &Mosquitto,
    gateway: &mut Gateway,
    words: &[&str],
    answers: Vec<Answer>,
) -> (Vec<ModulesRequest>, (i32, String, String)) {
    let child = command(&broker.url(), words).spawn().unwrap();
    tokio::join!(
        async {
            let mut asked = Vec::new();
            for answer in answers {
                let delivery = gateway.next().await;
                gateway.answer(&delivery, answer).await;
                let Code::Modules(request) = delivery.request.code else { panic!("{:?}", delivery.request) };
                asked.push(request);
            }
            asked
        },
        output(child)
    )
}

fn list(modules: &[StoredModule]) -> Answer {
    exited(0, encode_list(modules), "")
}

fn failed(kind: ErrorKind, message: &str) -> Answer {
    Answer::failed(None, WireError::new(kind, message))
}

#[tokio::test]
async fn what_is_there_is_listed_for_people_and_programs() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let modules =
        [stored(0x5a, 0x3f, Duration::from_secs(90)), stored(0xab, 0xcd, Duration::from_secs(200_000))];
    let (asked, (code, shown, told)) = run(&broker, &mut gateway, &["ls"], vec![list(&modules)]).await;
    assert_eq!((asked, code, told), (vec![ModulesRequest::List], 0, String::new()));
    let rows: Vec<&str> = shown.lines().collect();
    assert!(rows[0].starts_with("DIGEST  ") && rows[0].ends_with("  SIZE  LAST USED"), "{shown}");
    assert_eq!(rows[1], format!("{}  5 KiB  1 min ago", modules[0].digest));
    assert_eq!(rows[2], format!("{}  5 KiB  2 d ago", modules[1].digest));

    for version in ["3.1.1", "5"] {
        let words = ["-V", version, "ls", "--json"];
        let (_, (code, shown, _)) = run(&broker, &mut gateway, &words, vec![list(&modules)]).await;
        let expected = [&encode_list(&modules)[..], b"\n"].concat();
        assert_eq!((code, shown.as_bytes()), (0, &expected[..]));
    }
    let refused = || vec![failed(ErrorKind::Output, "too many")];
    let (_, said) = run(&broker, &mut gateway, &["ls"], refused()).await;
    assert_eq!(said, (125, String::new(), "error: output: too many\n".to_owned()));
    let (_, (code, shown, told)) = run(&broker, &mut gateway, &["ls", "--json"], refused()).await;
    assert!(shown.contains(r#""error":{"kind":"output","message":"too many"}"#), "{shown}");
    assert_eq!((code, told), (125, String::new()));
    // A gateway that does not know the field.
    let old = failed(ErrorKind::Malformed, "modules: no such field");
    let (_, (code, _, told)) = run(&broker, &mut gateway, &["ls"], vec![old]).await;
    assert_eq!((code, &*told), (125, "error: malformed: modules: no such field\n"));
}

#[tokio::test]
async fn each_file_is_kept_or_told() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (binary, text) = (file("a.wasm", MODULE), file("b.wat", b"(module)"));
    let (source, other) = (file("c.c", b"int main(void) {}"), file("x.txt", b"a text"));
    let module = stored(0x5a, 0x3f, Duration::ZERO);
    let store = || ModulesRequest::Store(MODULE.into());
    let kept = || list(std::slice::from_ref(&module));
    let full = || failed(ErrorKind::TooLarge, "module: 8 bytes");

    let words = ["push", &binary, &text];
    let (asked, said) = run(&broker, &mut gateway, &words, vec![kept(), kept()]).await;
    let digests = format!("{0}\n{0}\n", module.digest);
    assert_eq!((asked, said), (vec![store(), store()], (0, digests, String::new())));

    // One that is not kept does not keep the others from it.
    let (asked, (code, shown, told)) = run(&broker, &mut gateway, &words, vec![full(), kept()]).await;
    assert_eq!((asked.len(), code, shown), (2, 125, format!("{}\n", module.digest)));
    assert_eq!(told, format!("error: too-large: {binary}: module: 8 bytes\n"));
    let words = ["push", "--json", &binary, &text];
    let (_, (code, shown, _)) = run(&broker, &mut gateway, &words, vec![kept(), full()]).await;
    assert_eq!((code, shown.trim_end().as_bytes()), (125, &encode_list(&[module])[..]));
    let (_, (code, shown, told)) =
        run(&broker, &mut gateway, &["push", "--json", &binary], vec![full()]).await;
    assert!(shown.contains(r#""kind":"too-large""#), "{shown}");
    assert_eq!((code, told), (125, String::new()));

    // Modules only; and nothing is sent before all files are read.
    for (operand, problem) in [
        (&*source, "push takes modules (.wasm, .wat), this is source; `send` has the gateway build it"),
        (folder.path().to_str().unwrap(), "this is a folder; `send` has the gateway build one"),
        (&*other, "x.txt: not a wasm module; `send` has the gateway build C or C++"),
        ("nothing", "nothing: no such file"),
        ("none.wasm", "none.wasm: no such file"),
        (&*Digest([7; 32]).to_string(), "this is a digest"),
    ] {
        let (_, (code, shown, told)) =
            run(&broker, &mut gateway, &["push", &binary, operand], Vec::new()).await;
        assert_eq!((code, &*shown), (125, ""), "{operand}");
        assert!(told.trim_end().ends_with(problem), "{operand}: {told}");
    }
}

#[tokio::test]
async fn a_prefix_that_is_not_one_modules_removes_nothing() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let modules = [(0x5a, 0x3f), (0x5a, 0x3e), (0xab, 0xcd)]
        .map(|(first, second)| stored(first, second, Duration::ZERO));
    let [one, other, third] = modules.each_ref().map(|module| module.digest);
    let there = || list(&modules);
    let done = || exited(0, "", "");

    // One in full need not be looked up; of several all have to be there.
    let (asked, said) = run(&broker, &mut gateway, &["rm", &one.to_string()], vec![done()]).await;
    assert_eq!(asked, [ModulesRequest::Remove(one)]);
    assert_eq!(said, (0, format!("{one}\n"), String::new()));
    let words = ["rm", &one.to_string(), &third.hex()];
    let (asked, said) = run(&broker, &mut gateway, &words, vec![there(), done(), done()]).await;
    let removes = [one, third].map(ModulesRequest::Remove);
    assert_eq!((&asked[0], &asked[1..]), (&ModulesRequest::List, &removes[..]));
    assert_eq!(said, (0, format!("{one}\n{third}\n"), String::new()));

    let words = ["rm", "ABCD", "sha256:5a3f", "abcd11"];
    let (asked, said) = run(&broker, &mut gateway, &words, vec![there(), done(), done()]).await;
    assert_eq!((&asked[0], &asked[1..]), (&ModulesRequest::List, &removes[..]));
    assert_eq!(said, (0, format!("{one}\n{third}\n"), String::new()));

    let several = [stored(0x5a, 0x3f, Duration::ZERO), StoredModule { digest: other, ..modules[0].clone() }];
    let mut alike = several.clone();
    alike[1].digest.0[1] = 0x3f;
    alike[1].digest.0[31] = 0;
    for (prefix, there, kind, problem) in [
        ("5a3f", alike, "malformed", "2 modules begin so: sha256:5a3f"),
        ("5a30", several, "not-found", "5a30: no module of yours begins so"),
    ] {
        let words = ["rm", &one.to_string(), prefix];
        let (asked, (code, shown, told)) = run(&broker, &mut gateway, &words, vec![list(&there)]).await;
        assert_eq!((asked, code, &*shown), (vec![ModulesRequest::List], 125, ""), "{prefix}");
        assert!(told.starts_with(&format!("error: {kind}: ")) && told.contains(problem), "{told}");
    }
    for wrong in ["5a3", "x.wasm", "sha256:"] {
        let (_, (code, shown, told)) = run(&broker, &mut gateway, &["rm", wrong], Vec::new()).await;
        assert_eq!((code, &*shown), (125, ""), "{wrong}");
        assert!(told.starts_with("error: malformed: ") && told.contains("hexadecimal digits"), "{told}");
    }
    // What was removed before it failed is told.
    let words = ["rm", &one.to_string(), &other.to_string()];
    let gone = failed(ErrorKind::NotFound, "no module of yours");
    let (_, (code, shown, told)) = run(&broker, &mut gateway, &words, vec![there(), done(), gone]).await;
    assert_eq!((code, shown), (125, format!("{}\n", one.min(other))));
    assert_eq!(told, "error: not-found: no module of yours\n");
}

#[tokio::test]
async fn the_library_lists_stores_and_removes() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    for mqtt_version in [MqttVersion::V311, MqttVersion::V5] {
        let options = Options { mqtt_version, ..broker.options() };
        let client = Client::connect(options).await.unwrap();
        let module = stored(0x5a, 0x3f, Duration::ZERO);
        let answers = [
            list(std::slice::from_ref(&module)),
            list(std::slice::from_ref(&module)),
            exited(0, "", ""),
            failed(ErrorKind::NotFound, "none"),
            exited(0, "no list", ""),
        ];
        let answering = async {
            for answer in answers {
                let delivery = gateway.next().await;
                gateway.answer(&delivery, answer).await;
            }
        };
        let asking = async {
            assert_eq!(client.modules().await.unwrap(), std::slice::from_ref(&module));
            assert_eq!(client.store_module(MODULE.into()).await.unwrap(), module);
            client.remove_module(module.digest).await.unwrap();
            let gone = client.remove_module(module.digest).await.unwrap_err();
            assert!(matches!(&gone, Error::Gateway(error) if error.kind == ErrorKind::NotFound), "{gone}");
            assert_eq!(gone.kind(), "not-found");
            assert!(matches!(client.modules().await, Err(Error::Answer(_))));
        };
        tokio::join!(answering, asking);
        client.disconnect().await;
    }
}
