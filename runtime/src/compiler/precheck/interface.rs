//! Interfaces of components, by their names: which of them a component can have here.

use crate::wasm::{context, preview2};
use semver::Version;

/// Why there is no such interface here, and how to do without it; `None` where there is.
pub fn refusal(name: &str) -> Option<String> {
    if name.starts_with(context::PACKAGE) {
        return None;
    }
    let Some(wasi) = name.strip_prefix("wasi:") else {
        let own = context::PACKAGE;
        return Some(format!("a component gets the interfaces of `wasi:` and `{own}` and nothing else"));
    };
    let (path, version) = wasi.split_once('@').unwrap_or((wasi, ""));
    let package = path.split_once('/').map_or(path, |(package, _)| package);
    if !preview2::PACKAGES.contains(&package) {
        let offered = preview2::PACKAGES.join(", ");
        return Some(format!("`wasi:{package}` is not offered, only these of WASI 0.2: {offered}"));
    }
    refused_version(version).map(str::to_string)
}

/// Why there are no interfaces of WASI in this version.
fn refused_version(version: &str) -> Option<&'static str> {
    match Version::parse(version).map(|version| (version.major, version.minor, version.pre.is_empty())) {
        Ok((0, 2, true)) => None,
        Ok((0, 2, false)) => Some("a pre-release of WASI 0.2 is not offered: build it with newer tools"),
        Ok((0, 3, _)) => Some("WASI 0.3 is not offered: build it for WASI 0.2 (wasm32-wasip2)"),
        _ => Some("only version 0.2 of it is offered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_wasi_0_2_and_our_own_are_offered() {
        for name in ["wasi:cli/stdin@0.2.0", "wasi:io/poll@0.2.12", "wasi:sockets/tcp@0.2.99"] {
            assert_eq!(refusal(name), None, "{name}");
        }
        assert_eq!(refusal("offload:guest/context@0.1.0"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (name, what) in [
            ("wasi:cli/stdin@0.3.0", "WASI 0.3"),
            ("wasi:cli/run@0.3.0-rc-2026-01-06", "WASI 0.3"),
            ("wasi:clocks/monotonic-clock@0.3.1", "WASI 0.3"),
            ("wasi:cli/stdin@0.2.0-rc-2023-12-05", "a pre-release of WASI 0.2"),
            ("wasi:http/types@0.2.10", "`wasi:http`"),
            ("wasi:http/handler@0.3.0", "`wasi:http`"),
            ("wasi:keyvalue/store@0.2.0-draft", "`wasi:keyvalue`"),
            ("wasi:clis/stdin@0.2.0", "`wasi:clis`"),
            ("wasi:cli/stdin", "only version 0.2"),
            ("wasi:cli/stdin@1.0.0", "only version 0.2"),
            ("example:a/b", "nothing else"),
            ("wasi", "nothing else"),
        ] {
            let reason = refusal(name).unwrap_or_else(|| panic!("{name} is refused"));
            assert!(reason.contains(what), "{name}: {reason}");
        }
    }
}
