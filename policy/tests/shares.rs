//! How accounts share a worker: one account's requests beside another one's, in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use offload_policy::{
    AccountUse, Dispatcher, DispatcherLimits, GuestId, Load, Next, SliceTime, Submission, Time,
};

/// The longest slice, as by default.
const SLICE: Time = Time::from_micros(500);
const LOAD: Load = Load { requests: 1, bytes: 100 };
const MINUTE: Time = Time::from_secs(60);

/// Clients of one account, all alike.
#[derive(Clone, Copy)]
struct Clients {
    account: &'static str,
    count: usize,
    /// CPU time of a request.
    takes: Time,
    /// Each client asks so often; without it, again when it has its answer.
    every: Option<Time>,
    /// When they begin.
    from: Time,
}

/// What became of an account's requests.
#[derive(Debug, Default)]
struct Seen {
    /// CPU time that they got.
    used: Time,
    answered: usize,
    longest: Time,
}

/// A request: whose, when it came, and what is left of it.
struct Request {
    client: usize,
    came: Time,
    left: Time,
    is_new: bool,
}

/// One worker for these clients, for so long.
fn run(groups: &[Clients], length: Time) -> BTreeMap<&'static str, Seen> {
    let mut dispatcher: Dispatcher<(&str, usize), usize, usize> =
        Dispatcher::new(DispatcherLimits::default());
    let clients: Vec<Clients> =
        groups.iter().flat_map(|group| std::iter::repeat_n(*group, group.count)).collect();
    let begin = clients.iter().enumerate().map(|(client, of)| (of.from, client));
    let mut due: BTreeSet<(Time, usize)> = begin.collect();
    let (mut requests, mut guests) = (Vec::<Request>::new(), BTreeMap::<GuestId, usize>::new());
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut now = Time::ZERO;
    while now < length {
        while let Some((at, client)) = due.pop_first_if(|(at, _)| *at <= now) {
            let Clients { account, takes, every, .. } = clients[client];
            due.extend(every.map(|every| (at + every, client)));
            let key = (account, client);
            dispatcher.admit(&key, LOAD, now).expect("all may wait");
            let (program, deadline, job) = (client, None, requests.len());
            requests.push(Request { client, came: at, left: takes, is_new: true });
            let (cpu, wall) = (MINUTE * 60, MINUTE * 60);
            dispatcher.submit(Submission { key, load: LOAD, program, deadline, cpu, wall, job });
        }
        let guest = match dispatcher.next(0, now) {
            Next::Start { guest, job, .. } => {
                guests.insert(guest, job);
                guest
            }
            Next::Resume(guest) => guest,
            Next::Idle(_) => {
                now = due.first().expect("some ask again").0;
                continue;
            }
            other => panic!("{other:?}"),
        };
        let of = &mut requests[guests[&guest]];
        let took = of.left.min(SLICE);
        (now, of.left) = (now + took, of.left - took);
        let is_new = std::mem::take(&mut of.is_new);
        let slice = if is_new { SliceTime::Free(took) } else { SliceTime::Charged(took) };
        let seen = seen.entry(clients[of.client].account).or_default();
        seen.used += took;
        if of.left > Time::ZERO {
            assert!(dispatcher.slice_ended(0, guest, slice));
            dispatcher.ready(0, guest, now);
            continue;
        }
        dispatcher.finished(0, guest, slice);
        guests.remove(&guest);
        (seen.answered, seen.longest) = (seen.answered + 1, seen.longest.max(now - of.came));
        if clients[of.client].every.is_none() {
            due.insert((now, of.client));
        }
    }
    seen
}

/// The first of `set`, if it is one of these.
trait PopFirstIf<T> {
    fn pop_first_if(&mut self, is_it: impl FnOnce(&T) -> bool) -> Option<T>;
}

impl<T: Ord> PopFirstIf<T> for BTreeSet<T> {
    fn pop_first_if(&mut self, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        self.first().is_some_and(is_it).then(|| self.pop_first()).flatten()
    }
}

const fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

const fn closed(account: &'static str, count: usize, takes: Time) -> Clients {
    Clients { account, count, takes, every: None, from: Time::ZERO }
}

const fn every(account: &'static str, every: Time, takes: Time) -> Clients {
    Clients { account, count: 1, takes, every: Some(every), from: BEGIN }
}

/// When what the others do has become usual.
const BEGIN: Time = ms(500);

const ENDLESS: Time = Time::from_secs(3_000);

/// A request of 6 ms is none of the short ones, but its account asks for little. Without shares by account each of its
/// slices waits until it is overdue: it took 246 ms beside requests of 1 ms, and 1.3 s beside requests of 2 ms.
#[test]
fn a_request_does_not_wait_for_another_accounts_flood() {
    let calm = every("calm", ms(50), ms(6));
    for flood in [ms(1), ms(2), ms(6), ms(100), ENDLESS] {
        let seen = run(&[calm, closed("flood", 64, flood)], ms(5_000));
        // A fifth is for what is overdue, and one slice was running.
        let most = ms(6) * 5 / 4 + SLICE * 3;
        assert!(seen["calm"].longest <= most, "beside requests of {flood:?}: {:?}", seen["calm"]);
        assert!(seen["flood"].used >= ms(4_400), "what is left is the flood's: {seen:?}");
    }
}

#[test]
fn accounts_that_ask_for_more_than_there_is_get_equal_parts() {
    let few = [ms(1), ms(6), ms(100), ENDLESS];
    for (few, many) in few.into_iter().flat_map(|few| [(few, ms(1)), (few, ms(20)), (few, ENDLESS)]) {
        let seen = run(&[closed("few", 1, few), closed("many", 64, many)], ms(4_000));
        let used = seen["few"].used;
        assert!(used >= ms(1_800), "one client with {few:?} beside 64 with {many:?}: {used:?} of 4 s");
    }
    let three = run(&[closed("a", 1, ENDLESS), closed("b", 8, ms(3)), closed("c", 64, ms(1))], ms(6_000));
    assert!(three.values().all(|seen| seen.used >= ms(1_850)), "{three:?}");
}

#[test]
fn what_is_short_does_not_wait_for_what_is_long_of_its_own_account() {
    let short = every("own", ms(3), Time::from_micros(100));
    let apart = Clients { account: "other", ..short };
    let longest =
        |hogs: usize, of: Clients| run(&[of, closed("own", hogs, ENDLESS)], ms(4_000))[of.account].longest;
    // `Seen` of one account has both; the endless ones never end.
    for hogs in [1, 8, 64] {
        assert!(longest(hogs, short) <= SLICE * 2, "{hogs} of its own: {:?}", longest(hogs, short));
        assert!(longest(hogs, apart) <= SLICE * 2, "{hogs} of another account: {:?}", longest(hogs, apart));
    }
}

/// Who comes back is ahead of the others for less than a half-life.
#[test]
fn who_has_used_nothing_does_not_keep_the_others_waiting_for_long() {
    const HALF_LIFE: Time = AccountUse::<&str>::HALF_LIFE;
    let seen =
        run(&[closed("old", 8, ENDLESS), Clients { from: BEGIN, ..closed("new", 1, ENDLESS) }], ms(2_500));
    let (old, new) = (seen["old"].used - BEGIN, seen["new"].used);
    assert!(new > old && new - old <= HALF_LIFE, "since the new one has come: {old:?} and {new:?}");
}
