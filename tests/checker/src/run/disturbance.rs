//! What happens in a round while the load goes on: servers are killed and started again, links are cut and mended.

use std::ops::Range;

use anyhow::{Context, Result};

use super::{Kill, Run};
use crate::deployment::{MEMBERS, Server, Target, gate};
use crate::ledger::Fault;
use crate::link::Condition;

/// Of a hundred starts, how many are killed again, and when: before a gateway is ready, or while it recovers.
const KILL_AGAIN_PERCENT: u64 = 25;
const KILL_AGAIN_MS: Range<u64> = 0..250;

/// How long Mosquitto is away: longer than a gateway waits before it tries again, which otherwise takes broker after
/// broker that closes its connection for another gateway with its client id.
const AWAY_MS: Range<u64> = 150..400;

/// Of a hundred rounds, in how many the load goes on after the last start, and for how long.
const LOAD_ON_PERCENT: u64 = 50;
const LOAD_ON_MS: Range<u64> = 0..200;

/// How long a server of a cluster is away: for some of that time the cluster elects leaders.
const CLUSTER_AWAY_MS: Range<u64> = 0..4_000;

/// Of a hundred rounds of a cluster, in how many a server is cut off from the others, and for how long: some of these
/// times are longer than `nats.ack_wait`, and than an election.
const PARTITION_PERCENT: u64 = 40;
const PARTITION_MS: Range<u64> = 500..7_000;

/// How long a way between sites is not as it should be: at the most longer than a router waits for its master.
const LINK_MS: Range<u64> = 50..9_000;

/// How long the master is away.
const MASTER_AWAY_MS: Range<u64> = 0..1_500;

impl Run<'_> {
    /// One disturbance, as the seed says. What does not start again is told.
    pub(super) async fn disturb(&mut self) -> Result<Result<(), String>> {
        match (self.options.kill, self.options.settings.target) {
            (Kill::None, _) => Ok(Ok(())),
            (_, Target::Nats) => self.disturb_cluster().await,
            (_, Target::Sites) => self.disturb_sites().await,
            (Kill::Gateway, _) => self.kill_one(Server::Gateway(0)).await,
            (Kill::Broker, _) => self.kill_one(Server::Mosquitto).await,
            (Kill::Either, _) => {
                let gateway = self.random.percent(50);
                self.kill_one(if gateway { Server::Gateway(0) } else { Server::Mosquitto }).await
            }
        }
    }

    /// Kills it and starts it again, sometimes more than once.
    async fn kill_one(&mut self, victim: Server) -> Result<Result<(), String>> {
        self.kill_and_start(victim).await?;
        while self.random.percent(KILL_AGAIN_PERCENT) {
            self.pause(KILL_AGAIN_MS).await;
            self.kill_and_start(victim).await?;
        }
        let ready = self.ready(victim).await;
        if ready.is_ok() && self.random.percent(LOAD_ON_PERCENT) {
            self.pause(LOAD_ON_MS).await;
        }
        Ok(ready)
    }

    /// Does not wait until it is ready again.
    async fn kill_and_start(&mut self, victim: Server) -> Result<()> {
        self.kill(victim).await?;
        if victim == Server::Mosquitto && self.shared.mix.requests {
            self.pause(AWAY_MS).await;
        }
        self.deployment.spawn(victim)
    }

    /// A server and a gateway are killed at once, or a server and those who are connected to it are cut off.
    async fn disturb_cluster(&mut self) -> Result<Result<(), String>> {
        let member = self.member();
        if self.random.percent(PARTITION_PERCENT) {
            self.cut(&format!("{} cut off", Server::Nats(member).name()));
            self.deployment.set_ways_of_server(member, Condition::Cut);
            self.pause(PARTITION_MS).await;
            self.deployment.set_ways_of_server(member, Condition::Whole);
            self.mended("the partition healed");
            return Ok(Ok(()));
        }
        let victims = [Server::Nats(member), Server::Gateway(self.member())];
        for victim in victims {
            self.kill(victim).await?;
        }
        self.pause(CLUSTER_AWAY_MS).await;
        self.start_again(&victims).await
    }

    /// The way to the master is cut, stalled or slow, the master or a site is killed, or some of that at once.
    async fn disturb_sites(&mut self) -> Result<Result<(), String>> {
        let site = self.member();
        let link = match self.random.within(0..4) {
            0 => Some(Condition::Cut),
            1 => Some(Condition::Stalled),
            2 => Some(Condition::Slow),
            _ => None,
        };
        if let Some(condition) = link {
            self.cut(&format!("the way of {} to the master is {condition:?}", gate(site)));
            self.deployment.set_way_to_master(site, condition);
        }
        let mut victims = Vec::new();
        if self.random.percent(40) {
            victims.push(Server::Master);
        }
        if self.random.percent(40) || (link.is_none() && victims.is_empty()) {
            victims.push(Server::Gateway(self.member()));
        }
        for &victim in &victims {
            self.kill(victim).await?;
        }
        if victims.contains(&Server::Master) {
            self.pause(MASTER_AWAY_MS).await;
        }
        let started = self.start_again(&victims).await?;
        if link.is_some() {
            self.pause(LINK_MS).await;
            self.deployment.set_way_to_master(site, Condition::Whole);
            self.mended(&format!("the way of {} to the master is whole", gate(site)));
        }
        Ok(started)
    }

    /// One of those that there are three of.
    fn member(&mut self) -> u8 {
        (self.random.number() % u64::from(MEMBERS)) as u8
    }

    async fn kill(&mut self, victim: Server) -> Result<()> {
        if let Some(ended) = self.deployment.ended() {
            self.shared.observed(Fault::Down, ended);
        }
        self.deployment.kill(victim).await.context("cannot kill a server")?;
        self.kills += 1;
        self.shared.ledger.borrow_mut().crashed(self.shared.now(), &victim.name());
        Ok(())
    }

    fn cut(&mut self, what: &str) {
        self.kills += 1;
        self.shared.ledger.borrow_mut().disturbed(self.shared.now(), what);
    }

    fn mended(&mut self, what: &str) {
        self.shared.ledger.borrow_mut().disturbed(self.shared.now(), what);
    }

    /// Starts all of them, and waits until each is ready.
    async fn start_again(&mut self, victims: &[Server]) -> Result<Result<(), String>> {
        for &victim in victims {
            self.deployment.spawn(victim)?;
        }
        for &victim in victims {
            if let Err(down) = self.ready(victim).await {
                return Ok(Err(down));
            }
        }
        Ok(Ok(()))
    }

    async fn ready(&mut self, server: Server) -> Result<(), String> {
        let ready = self.deployment.ready(server).await;
        ready.map_err(|error| format!("{} does not start again: {error:#}", server.name()))
    }
}
