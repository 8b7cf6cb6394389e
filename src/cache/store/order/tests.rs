//! The orders beside plain models of them, and what each is for.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::queues::Queues;
use super::*;

const LIMIT: u64 = 1000;

fn name(number: u128) -> Name {
    Name { page: number, variance: None }
}

fn newcomer(number: u128, weight: u64) -> Newcomer {
    Newcomer { name: name(number), weight, is_known: false }
}

fn s3_fifo() -> S3Fifo {
    S3Fifo::new(&Probation::new(&Budget::new(LIMIT)))
}

/// Lets the order give up what it would.
fn evict(order: &mut dyn Order, now: u64) -> Option<Name> {
    let (slot, name) = order.next(now)?;
    order.evict(slot);
    Some(name)
}

/// A shard under an order, that holds at most so much.
struct Shelf<'a> {
    order: &'a mut dyn Order,
    objects: Vec<(Slot, Newcomer)>,
    now: u64,
}

impl Shelf<'_> {
    fn ask_for_each(&mut self, numbers: impl IntoIterator<Item = u128>, weight: u64) {
        for number in numbers {
            self.ask(number, weight);
        }
    }

    /// Whether it was there; now it is.
    fn ask(&mut self, number: u128, weight: u64) -> bool {
        self.now += 1;
        if let Some((slot, _)) = self.objects.iter().find(|(_, object)| object.name == name(number)) {
            self.order.touch(*slot, self.now);
            return true;
        }
        while self.objects.iter().map(|(_, object)| object.weight).sum::<u64>() + weight > LIMIT {
            let gone = evict(self.order, self.now).expect("something is there");
            self.objects.retain(|(_, object)| object.name != gone);
        }
        let newcomer = newcomer(number, weight);
        self.objects.push((self.order.add(newcomer, self.now), newcomer));
        false
    }
}

fn shelf(order: &mut dyn Order) -> Shelf<'_> {
    Shelf { order, objects: Vec::new(), now: 0 }
}

/// How many of the hot ones are left after a scan of others that are asked for once.
fn left_after_a_scan(order: &mut dyn Order) -> usize {
    let mut shelf = shelf(order);
    for _ in 0..4 {
        shelf.ask_for_each(0..50, 10);
    }
    shelf.ask_for_each(1000..2000, 10);
    shelf.objects.iter().filter(|(_, object)| object.name.page < 50).count()
}

#[test]
fn a_scan_does_not_throw_out_what_is_hot_under_s3_fifo() {
    assert_eq!(left_after_a_scan(&mut s3_fifo()), 50);
    assert_eq!(left_after_a_scan(&mut Lru::new()), 0, "which is what it is for");
}

#[test]
fn who_is_asked_for_again_after_it_left_goes_to_the_main_queue() {
    let mut order = s3_fifo();
    let mut shelf = shelf(&mut order);
    shelf.ask_for_each(0..=10, 100);
    assert!(!shelf.ask(0, 100), "it was the first to go");
    shelf.ask_for_each(100..200, 100);
    assert!(shelf.ask(0, 100), "it is no newcomer any more");
}

#[test]
fn what_is_replaced_is_no_newcomer() {
    let mut order = s3_fifo();
    let slot = order.add(newcomer(1, 100), 0);
    order.remove(slot);
    assert_eq!(order.on_probation(), 0);
    order.add(Newcomer { is_known: true, ..newcomer(1, 100) }, 1);
    assert_eq!(order.on_probation(), 0);
}

#[test]
fn what_is_in_use_is_put_off_in_its_own_queue() {
    let mut order = s3_fifo();
    let first = order.add(newcomer(1, 100), 0);
    order.add(newcomer(2, 100), 1);
    order.put_off(first, 2);
    assert_eq!((order.next(3).map(|(_, name)| name), order.on_probation()), (Some(name(2)), 200));
    assert_eq!(order.turn(), Some(Turn { is_makeshift: false, since: 1 }));
}

#[test]
fn something_goes_in_the_end_however_much_all_is_in_demand() {
    let mut order = s3_fifo();
    let slots: Vec<_> = (0..500).map(|number| order.add(newcomer(number, 2), 0)).collect();
    for left in (0..500).rev() {
        slots.iter().for_each(|slot| order.touch(*slot, 1));
        assert!(evict(&mut order, 1).is_some());
        assert_eq!(order.len(), left);
    }
    assert_eq!((order.on_probation(), order.turn()), (0, None));
}

#[test]
fn shards_of_one_store_share_the_room_for_probation() {
    let shard = orders(Eviction::S3Fifo, &Budget::new(LIMIT));
    let (mut one, mut other) = (shard(), shard());
    let known = Newcomer { is_known: true, ..newcomer(1, 100) };
    one.add(known, 0);
    other.add(newcomer(2, 60), 1);
    assert_eq!(other.turn(), Some(Turn { is_makeshift: true, since: 1 }), "there is room for what is new");
    one.add(newcomer(3, 60), 2);
    assert_eq!(other.turn(), Some(Turn { is_makeshift: false, since: 1 }), "now there is not");
    assert_eq!(one.turn(), Some(Turn { is_makeshift: false, since: 2 }), "nor does what has proved itself go");
}

#[test]
fn a_shard_whose_new_objects_have_all_proved_themselves_leaves_the_turn_to_another() {
    let shard = orders(Eviction::S3Fifo, &Budget::new(LIMIT));
    let (mut one, mut other) = (shard(), shard());
    let slot = one.add(newcomer(1, 100), 0);
    other.add(newcomer(2, 200), 1);
    (0..2).for_each(|_| one.touch(slot, 2));
    assert_eq!(one.next(4), None);
    assert_eq!(other.next(4).map(|(_, name)| name), Some(name(2)));
    assert_eq!(one.next(4), Some((slot, name(1))), "asked again, it is a last resort");
}

/// What the marks of those that left may take: what the objects have paid for, and a kilobyte.
fn ghosts_may_take(objects: usize) -> usize {
    32 * objects + 1024
}

#[test]
fn marks_of_those_that_left_take_no_more_than_objects_pay_for_however_many_come_and_go() {
    let mut order = s3_fifo();
    let mut slots = VecDeque::new();
    for number in 0..200_000 {
        slots.push_back(order.add(newcomer(number, 1), number as u64));
        if slots.len() > 50
            && let Some(slot) = slots.pop_front()
        {
            order.evict(slot);
        }
    }
    assert!(order.ghost_bytes() <= ghosts_may_take(50), "{}", order.ghost_bytes());
    let many: Vec<_> = (0..100_000).map(|number| order.add(newcomer(number, 1), 0)).collect();
    for slot in many {
        order.evict(slot);
        assert!(order.ghost_bytes() <= ghosts_may_take(order.len()), "{} for {}", order.ghost_bytes(), order.len());
    }
}

#[test]
fn what_is_asked_for_once_leaves_before_what_was_asked_for_again() {
    let mut order = s3_fifo();
    let slots: Vec<_> = (0..20).map(|number| order.add(newcomer(number, 50), 0)).collect();
    for moment in 1..=2 {
        slots.iter().skip(1).step_by(2).for_each(|slot| order.touch(*slot, moment));
    }
    let gone: Vec<_> = (0..9).filter_map(|_| evict(&mut order, 3)).collect();
    assert!(gone.iter().all(|name| name.page.is_multiple_of(2)), "{gone:?}");
}

#[test]
fn what_grows_after_it_came_counts_as_what_it_has_become() {
    let mut order = s3_fifo();
    let slot = order.add(newcomer(1, 10), 0);
    order.reweigh(slot, 90);
    assert_eq!(order.on_probation(), 90);
    order.remove(slot);
    assert_eq!(order.on_probation(), 0);
}

/// What the order should do, as the paper has it: plain queues of (name, weight, uses).
#[derive(Default)]
struct Plain {
    small: VecDeque<(u128, u64, u8)>,
    main: VecDeque<(u128, u64, u8)>,
    /// The last sixteen that left; who has come back since keeps its place, and does not count.
    ghosts: VecDeque<Option<u128>>,
}

impl Plain {
    fn add(&mut self, number: u128, weight: u64) {
        let ghost = self.ghosts.iter_mut().find(|ghost| **ghost == Some(number));
        let queue = if ghost.is_some_and(|ghost| ghost.take().is_some()) { &mut self.main } else { &mut self.small };
        queue.push_back((number, weight, 0));
    }

    fn evict(&mut self) -> Option<u128> {
        loop {
            let small: u64 = self.small.iter().map(|item| item.1).sum();
            let from_small = (small > LIMIT / 10 || self.main.is_empty()) && !self.small.is_empty();
            let (number, weight, uses) = if from_small { &mut self.small } else { &mut self.main }.pop_front()?;
            match (from_small, uses) {
                (true, 2..) => self.main.push_back((number, weight, 0)),
                (true, _) => {
                    self.ghosts.push_back(Some(number));
                    self.ghosts.drain(..self.ghosts.len().saturating_sub(16));
                    return Some(number);
                }
                (false, 1..) => self.main.push_back((number, weight, uses - 1)),
                (false, 0) => return Some(number),
            }
        }
    }

    fn remove(&mut self, number: u128) {
        self.small.retain(|item| item.0 != number);
        self.main.retain(|item| item.0 != number);
    }

    fn touch(&mut self, number: u128) {
        let all = self.small.iter_mut().chain(&mut self.main);
        all.filter(|item| item.0 == number).for_each(|item| item.2 = 3.min(item.2 + 1));
    }
}

proptest! {
    #[test]
    fn queues_keep_the_order_that_plain_lists_keep(steps in prop::collection::vec((0..4_u8, 0..8_usize, 0..2_usize), 0..200)) {
        let mut lists: [Vec<(Slot, usize)>; 2] = Default::default();
        let mut queues = Queues::<usize, 2>::new();
        for (index, (step, which, queue)) in steps.into_iter().enumerate() {
            let there = which < lists[queue].len();
            match step {
                0 => lists[queue].push((queues.add(queue, index), index)),
                1 | 2 if there => {
                    let moved = lists[queue].remove(which);
                    let to = usize::from(step) - 1;
                    queues.move_to(to, moved.0);
                    lists[to].push(moved);
                }
                3 if there => {
                    let gone = lists[queue].remove(which);
                    prop_assert_eq!(queues.remove(gone.0), Some((queue, gone.1)));
                    prop_assert_eq!(queues.remove(gone.0), None);
                    queues.move_to(queue, gone.0);
                }
                _ => {}
            }
            prop_assert_eq!(queues.len(), lists[0].len() + lists[1].len());
            for (queue, list) in lists.iter().enumerate() {
                prop_assert_eq!(queues.oldest(queue).map(|(slot, item)| (slot, *item)), list.first().copied());
            }
        }
    }

    #[test]
    fn s3_fifo_gives_up_what_plain_queues_give_up(steps in prop::collection::vec((0..8_u8, 0..12_u128, 1..200_u64), 0..300)) {
        let (mut order, mut plain) = (s3_fifo(), Plain::default());
        let mut slots = std::collections::HashMap::new();
        for (now, (step, number, weight)) in (1..).zip(steps) {
            match (step, slots.get(&number).copied()) {
                (0..=3, None) => {
                    slots.insert(number, order.add(newcomer(number, weight), now));
                    plain.add(number, weight);
                }
                (0..=5, Some(slot)) => {
                    order.touch(slot, now);
                    plain.touch(number);
                }
                (6, Some(slot)) => {
                    order.remove(slot);
                    plain.remove(number);
                    slots.remove(&number);
                }
                (7, _) => {
                    let gone = evict(&mut order, now);
                    prop_assert_eq!(gone, plain.evict().map(name));
                    gone.map(|gone| slots.remove(&gone.page));
                }
                _ => {}
            }
            prop_assert_eq!(order.len(), plain.small.len() + plain.main.len());
            prop_assert_eq!(order.on_probation(), plain.small.iter().map(|item| item.1).sum::<u64>());
            prop_assert!(order.ghost_bytes() <= ghosts_may_take(order.len()));
        }
    }
}
