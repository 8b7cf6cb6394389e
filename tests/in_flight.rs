//! In-flight counts never leak: whatever becomes of requests, each backend has in hand what has been picked and not ended.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};
use portcullis::backend::Moment;
use portcullis::balance::Ask;
use portcullis::config::{self, Surroundings};
use portcullis::upstream::{Pick, Upstream};
use proptest::prelude::*;

/// What happens to the requests of an upstream.
#[derive(Clone, Debug)]
enum Step {
    /// A request comes, and has tried what one that is under way has.
    Come { random: u64, retry_of: Option<prop::sample::Index> },
    /// One that is under way ends.
    End { which: prop::sample::Index, how: How },
    /// The file is read again, with so many backends.
    Reload(usize),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Dropped,
    Failed,
    Answered(u16),
    Throttled(u16),
    BrokenOff(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop::sample::select(vec![200_u16, 404, 429, 500, 501, 503]);
    let how = prop_oneof![
        Just(How::Dropped),
        Just(How::Failed),
        status.clone().prop_map(How::Answered),
        status.clone().prop_map(How::Throttled),
        status.prop_map(How::BrokenOff),
    ];
    let come = (any::<u64>(), prop::option::of(any::<prop::sample::Index>()));
    let step = prop_oneof![
        6 => come.prop_map(|(random, retry_of)| Step::Come { random, retry_of }),
        6 => (any::<prop::sample::Index>(), how).prop_map(|(which, how)| Step::End { which, how }),
        1 => (1..6_usize).prop_map(Step::Reload),
    ];
    prop::collection::vec(step, 1..120)
}

fn upstream(balance: &str, backends: usize, old: Option<&Upstream>) -> Arc<Upstream> {
    let urls: Vec<_> = (0..backends).map(|number| format!("127.0.0.1:{}", 10_000 + number)).collect();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:80\" }}]\nupstreams:\n  app:\n    balance: {balance}\n    backends: [{}]\n    \
         health_check: none\n    passive_health: {{ consecutive_failures: 2, ejection: 1ms }}\nroutes: [{{ upstream: app }}]\n",
        urls.join(", ")
    );
    let config = config::parse(&text, "test", &Surroundings::of_process(".".into())).unwrap().config;
    let upstream = Upstream::new(&config.upstreams[0], old).unwrap();
    let nobody: portcullis::upstream::OnChange = Arc::new(|| {});
    upstream.watch(&nobody);
    upstream
}

fn end(mut pick: Pick, how: How) {
    let (now, mut fields) = (Instant::now(), HeaderMap::new());
    let mut answer = |status: u16, fields: &HeaderMap| {
        pick.answered(StatusCode::from_u16(status).unwrap(), fields, now);
    };
    match how {
        How::Dropped => {}
        How::Failed => pick.failed(now),
        How::Answered(status) => answer(status, &fields),
        How::Throttled(status) => {
            fields.insert("retry-after", HeaderValue::from_static("1"));
            answer(status, &fields);
        }
        How::BrokenOff(status) => {
            answer(status, &fields);
            pick.failed(now);
        }
    }
}

/// Every backend of the upstream has as many in flight as there are picks of it.
fn check(upstream: &Upstream, under_way: &[Pick]) -> Result<(), TestCaseError> {
    for member in upstream.members() {
        let picks = under_way.iter().filter(|pick| Arc::ptr_eq(pick.backend(), &member.backend)).count();
        prop_assert_eq!(upstream.in_flight(&member.backend) as usize, picks, "{}", member.backend.name);
    }
    Ok(())
}

fn play(balance: &str, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut current, mut under_way) = (upstream(balance, 4, None), Vec::new());
    for step in steps {
        match step {
            Step::Come { random, retry_of } => {
                let of = retry_of.filter(|_| !under_way.is_empty()).map(|of| &under_way[of.index(under_way.len())]);
                let tried: Vec<_> = of.map(|pick: &Pick| pick.backend().seat).into_iter().collect();
                let ask = Ask { hash: random, random, now: Moment::after(Duration::from_secs(1)) };
                under_way.extend(current.pick(&ask, &tried));
            }
            Step::End { which, how } if !under_way.is_empty() => {
                end(under_way.swap_remove(which.index(under_way.len())), how);
            }
            Step::End { .. } => {}
            Step::Reload(backends) => {
                let next = upstream(balance, backends, Some(&current));
                current.stop();
                current = next;
            }
        }
        check(&current, &under_way)?;
    }
    under_way.clear();
    check(&current, &under_way)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_becomes_of_requests_each_is_counted_once_and_then_no_more(
        steps in steps(), balance in prop::sample::select(vec!["round_robin", "least_connections", "peak_ewma"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        play(balance, steps)?;
    }
}
