//! A report as one JSON object. It holds nothing of the machine that it was made on.

use serde_json::{Map, Value, json};

use super::{CutBy, QUANTILES, Report};

/// The report as JSON.
pub fn of(report: &Report) -> Value {
    let mut object = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "scenario": report.name,
        "seed": report.seed,
        "replicas": report.replicas,
        "duration_s": report.duration as f64 / 1e9,
        "warm_up_s": report.warm_up as f64 / 1e9,
        "warm_up_by": match report.cut {
            CutBy::Scenario => "scenario",
            CutBy::Mser => "MSER",
            CutBy::MserInShortRun => "MSER, too short a run",
        },
        "events": report.events,
        "slices": report.slices,
        "devices": report.groups.iter().map(group).collect::<Vec<_>>(),
        "gateways": report.gateways.iter().map(gateway).collect::<Vec<_>>(),
        "links": report.links.iter().map(|link| json!({
            "name": link.name,
            "bytes_per_second": link.bytes.json(),
            "lost_per_second": link.lost.json(),
        })).collect::<Vec<_>>(),
        "sites": report.sites.iter().map(super::sites::SiteReport::json).collect::<Vec<_>>(),
        "modules": report.modules.iter().map(super::sites::ModuleReport::json).collect::<Vec<_>>(),
        "unfinished": report.unfinished.json(),
        "joined": report.repeated.0.json(),
        "surplus_answers": report.repeated.1.json(),
    });
    report.notes.add_to(&mut object);
    object
}

fn group(group: &super::GroupReport) -> Value {
    let mut latency: Map<String, Value> = QUANTILES
        .iter()
        .zip(&group.quantiles)
        .map(|((name, _), of)| ((*name).to_owned(), of.json()))
        .collect();
    latency.insert("mean".to_owned(), group.mean.json());
    let mut outcomes: Map<String, Value> =
        group.outcomes.iter().map(|(outcome, part)| (outcome.name().to_owned(), part.json())).collect();
    if group.left_open.mean > 0.0 {
        outcomes.insert("left open".to_owned(), group.left_open.json());
    }
    json!({
        "name": group.name,
        "made_per_second": group.made.json(),
        "ok_per_second": group.throughput.json(),
        "again_per_second": group.again.json(),
        "latency_s": latency,
        "outcomes": outcomes,
    })
}

fn gateway(gateway: &super::GatewayReport) -> Value {
    json!({
        "name": gateway.name,
        "count": gateway.count,
        "utilisation": gateway.utilisation.json(),
        "most_utilised": gateway.most_utilised.json(),
        "waiting": gateway.waiting.json(),
        "running": gateway.running.json(),
        "unreachable": gateway.unreachable.json(),
        "joules_per_request": gateway.energy.map(|energy| energy.json()),
        "each": gateway.each,
    })
}
