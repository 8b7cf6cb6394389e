//! Windows that move, quotas that change, and no window that is exceeded.

use proptest::prelude::*;

use super::*;

fn quota(most: u32, seconds: u64) -> Quota {
    Quota { most, window: Duration::from_secs(seconds) }
}

const fn at(millis: u64) -> Age {
    Duration::from_millis(millis)
}

/// One that is claimed and ended at this moment.
fn serve(log: &mut Log, now: Age) -> bool {
    let claimed = log.claim(now);
    if claimed {
        log.sent();
        log.end(now);
    }
    claimed
}

#[test]
fn a_window_moves_with_the_time_and_is_no_calendar() {
    let mut log = Log::new(vec![quota(2, 10)]);
    let served = [0, 9_000, 9_500, 10_000, 10_001, 18_999, 19_001].map(|millis| serve(&mut log, at(millis)));
    assert_eq!(served, [true, true, false, false, true, false, true]);
}

#[test]
fn every_window_must_have_room() {
    let mut log = Log::new(vec![quota(2, 1), quota(3, 60)]);
    let served = [0, 1, 2, 2_000, 2_001, 59_000, 61_000].map(|millis| serve(&mut log, at(millis)));
    assert_eq!(served, [true, true, false, true, false, false, true]);
    assert_eq!(log.opens_in(at(61_000)), Duration::ZERO);
}

#[test]
fn what_is_under_way_counts_until_a_window_after_its_end() {
    let mut log = Log::new(vec![quota(1, 10)]);
    assert!(log.claim(at(0)));
    log.sent();
    assert!(!log.claim(at(60_000)));
    assert_eq!(log.opens_in(at(60_000)), at(10_000));
    log.end(at(61_000));
    assert_eq!(log.opens_in(at(65_000)), at(6_000));
    assert!(!log.claim(at(71_000)) && log.claim(at(71_001)));
}

#[test]
fn what_never_reached_the_backend_is_given_back() {
    let mut log = Log::new(vec![quota(1, 10)]);
    assert!(log.claim(at(0)) && !log.claim(at(1)));
    assert_eq!(log.opens_in(at(1)), Duration::ZERO);
    log.give_back();
    assert!(log.claim(at(2)));
}

#[test]
fn what_is_left_is_told_of_the_quota_that_is_nearest_to_its_end() {
    let mut log = Log::new(vec![quota(10, 1), quota(100, 60)]);
    assert_eq!(log.left(at(0)).unwrap().0, 10);
    for _ in 0..5 {
        serve(&mut log, at(0));
    }
    assert_eq!(log.left(at(500)), Some((5, quota(10, 1))));
    assert_eq!(log.left(at(2_000)), Some((95, quota(100, 60))));
    assert!(log.claim(at(2_000)));
    assert_eq!(log.left(at(2_000)), Some((9, quota(10, 1))));
    assert_eq!(Log::new(Vec::new()).left(at(0)), None);
}

#[test]
fn other_quotas_keep_what_is_known() {
    let mut log = Log::new(vec![quota(5, 60)]);
    for _ in 0..4 {
        serve(&mut log, at(0));
    }
    log.set(&[quota(3, 60)]);
    assert!(!log.claim(at(1)));
    log.set(&[quota(3, 60), quota(5, 30)]);
    assert!(!log.claim(at(31_000)) && log.claim(at(60_001)));
}

#[test]
fn quotas_that_come_back_find_what_was_sent_meanwhile() {
    let mut log = Log::new(vec![quota(3, 600)]);
    assert!(serve(&mut log, at(0)));
    log.set(&[quota(1, 60)]);
    assert!(serve(&mut log, at(100_000)) && !log.is_idle(at(590_000)));
    log.set(&[quota(3, 600)]);
    assert!(serve(&mut log, at(200_000)) && !serve(&mut log, at(599_000)));
    assert!(serve(&mut log, at(600_001)));
}

#[test]
fn a_long_window_that_is_gone_does_not_make_the_log_longer_than_the_largest_count() {
    let mut log = Log::new(vec![quota(5, 86_400)]);
    log.set(&[quota(100, 1)]);
    for second in 0..50 {
        for _ in 0..100 {
            assert!(serve(&mut log, at(1_001 * second)));
        }
    }
    assert_eq!(log.ended.len(), 100);
    log.set(&[quota(5, 86_400)]);
    assert!(!log.claim(at(60_000)));
}

#[test]
fn memory_follows_use() {
    let mut log = Log::new(vec![quota(10_000, 60)]);
    assert_eq!(log.ended.capacity(), 0);
    for _ in 0..20_000 {
        serve(&mut log, at(0));
    }
    assert_eq!(log.ended.len(), 10_000);
    assert!(!log.is_idle(at(60_000)) && log.is_idle(at(60_001)));
    serve(&mut log, at(120_001));
    assert!(log.ended.len() == 1 && log.ended.capacity() <= 128, "{}", log.ended.capacity());
}

/// A request under way: when it was sent, if it was.
type UnderWay = Option<u64>;

proptest! {
    #[test]
    fn no_window_is_exceeded_by_one_request(
        quotas in prop::collection::vec((1_u32..6, 1_u64..30), 1..4),
        steps in prop::collection::vec((0_u64..3_000, 0_u8..5, any::<prop::sample::Index>(), 0_u64..=100), 1..400),
    ) {
        let quotas: Vec<_> = quotas.into_iter().map(|(most, seconds)| quota(most, seconds)).collect();
        let mut log = Log::new(quotas.clone());
        let (mut now, mut under_way, mut received) = (0, Vec::<UnderWay>::new(), Vec::new());
        for (pause, what, which, when) in steps {
            now += pause;
            let place = (!under_way.is_empty()).then(|| which.index(under_way.len()));
            match (what, place) {
                (0..2, _) | (_, None) => under_way.extend(log.claim(at(now)).then_some(None)),
                (2, Some(place)) if under_way[place].is_none() => {
                    log.sent();
                    under_way[place] = Some(now);
                }
                (3, Some(place)) if under_way[place].is_none() => {
                    log.give_back();
                    under_way.swap_remove(place);
                }
                (_, Some(place)) => {
                    if let Some(sent) = under_way[place] {
                        // It reached the backend at any moment in between.
                        received.push(sent + (now - sent) * when / 100);
                        log.end(at(now));
                        under_way.swap_remove(place);
                    }
                }
            }
        }
        received.sort_unstable();
        for quota in quotas {
            let most = quota.most as usize;
            for (first, next) in received.iter().zip(received.iter().skip(most)) {
                prop_assert!(next - first >= quota.window.as_millis() as u64, "{:?}: {:?}", quota, received);
            }
        }
    }
}
