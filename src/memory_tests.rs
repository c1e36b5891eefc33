//! The reserve with hand-made times, with threads, and against a naive model.

#![allow(clippy::unwrap_used)]

use std::thread;

use crossbeam_channel::{Receiver, bounded};
use proptest::prelude::*;

use super::*;

struct Waiter {
    place: Option<Place>,
    woken: Receiver<()>,
}

impl Waiter {
    fn new(reserve: &Reserve, name: &str) -> Self {
        let (wake, woken) = bounded(1);
        Self { place: Some(reserve.line_up(name, wake)), woken }
    }

    fn take(&mut self, now: Instant) -> Option<Loan> {
        match self.place.take()?.take(now) {
            Ok(loan) => Some(loan),
            Err(place) => {
                self.place = Some(place);
                None
            }
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.try_recv().is_ok()
    }
}

#[test]
fn it_is_lent_to_one_at_a_time_in_the_order_of_the_line() {
    let (reserve, now) = (Reserve::new(64), Instant::now());
    let mut waiters: Vec<Waiter> = ["a", "b", "c"].iter().map(|name| Waiter::new(&reserve, name)).collect();
    assert!(waiters[1].take(now).is_none(), "it is the first one's turn");
    let loan = waiters[0].take(now).unwrap();
    assert_eq!(loan.bytes(), 64);
    assert!(waiters[1].take(now).is_none(), "it is lent");
    assert!(!waiters[1].is_woken());
    drop(loan);
    assert!(waiters[1].is_woken() && !waiters[2].is_woken());
    assert!(waiters[2].take(now).is_none());
    let loan = waiters[1].take(now).unwrap();
    drop(loan);
    assert!(waiters[2].is_woken());
    assert!(waiters[2].take(now).is_some());
}

#[test]
fn who_leaves_the_line_hands_its_turn_on() {
    let (reserve, now) = (Reserve::new(64), Instant::now());
    let [mut first, second, mut third] = ["a", "b", "c"].map(|name| Waiter::new(&reserve, name));
    let loan = first.take(now).unwrap();
    drop(second.place);
    assert!(!third.is_woken(), "it is still lent");
    let fourth = Waiter::new(&reserve, "d");
    drop(loan);
    assert!(third.is_woken());
    drop(third.place.take());
    assert!(fourth.is_woken(), "the turn was handed on");
}

#[test]
fn who_does_not_come_goes_to_the_end_of_the_line() {
    let (reserve, now) = (Reserve::new(64), Instant::now());
    let [mut absent, mut second, mut third] = ["a", "b", "c"].map(|name| Waiter::new(&reserve, name));
    assert!(second.take(now).is_none());
    assert!(second.take(now + LOOK_AGAIN - Duration::from_millis(1)).is_none());
    assert!(third.take(now + LOOK_AGAIN).is_none(), "it is the second one's turn");
    assert!(second.is_woken());
    let loan = second.take(now + LOOK_AGAIN).unwrap();
    drop(loan);
    let loan = third.take(now + LOOK_AGAIN).unwrap();
    drop(loan);
    assert!(absent.take(now + LOOK_AGAIN).is_some(), "it has kept a place");
}

#[test]
fn a_loan_that_is_out_for_long_is_told_once() {
    let (reserve, now) = (Reserve::new(64), Instant::now());
    let [mut first, second, third] = ["a", "b", "c"].map(|name| Waiter::new(&reserve, name));
    let told = |waiter: &Waiter, at| waiter.place.as_ref().unwrap().long_loan(at);
    let _loan = first.take(now).unwrap();
    assert_eq!(told(&second, now + LONG / 2), None);
    assert_eq!(told(&second, now + LONG), Some(LongLoan { to: "a".into(), held: LONG }));
    assert_eq!((told(&second, now + LONG), told(&third, now + LONG * 2)), (None, None));
}

#[test]
fn a_loan_in_a_thread_that_panics_comes_back() {
    let (reserve, now) = (Reserve::new(64), Instant::now());
    let [mut first, mut second] = ["a", "b"].map(|name| Waiter::new(&reserve, name));
    let loan = first.take(now).unwrap();
    let died = thread::spawn(move || {
        let _held = loan;
        std::panic::resume_unwind(Box::new("gone"));
    });
    assert!(died.join().is_err());
    assert!(second.is_woken());
    assert!(second.take(now).is_some());
}

/// Threads that wait for their wake-up alone: one that was lost would leave them there.
#[test]
fn no_wake_up_is_lost_among_threads() {
    let reserve = Reserve::new(64);
    let running = (0..8).map(|n| {
        let reserve = reserve.clone();
        thread::spawn(move || {
            let who = format!("t{n}");
            let (wake, woken) = bounded(1);
            for round in 0..200 {
                let mut place = reserve.line_up(&who, wake.clone());
                // Every seventh time it thinks better of it.
                if round % 7 == 6 {
                    continue;
                }
                loop {
                    // Time stands still: nobody is sent to the end of the line.
                    match place.take(Instant::now().min(*STILL)) {
                        Ok(loan) => break drop(loan),
                        Err(kept) => place = kept,
                    }
                    woken.recv_timeout(Duration::from_secs(20)).unwrap();
                }
            }
        })
    });
    let running: Vec<_> = running.collect();
    running.into_iter().for_each(|thread| thread.join().unwrap());
}

static STILL: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

#[derive(Clone, Copy, Debug)]
enum Deed {
    LineUp(usize),
    Take(usize),
    Leave(usize),
    GiveBack,
    Later(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (0..5usize).prop_map(Deed::LineUp),
        (0..5usize).prop_map(Deed::Take),
        (0..5usize).prop_map(Deed::Leave),
        Just(Deed::GiveBack),
        (0..700u64).prop_map(Deed::Later),
    ]
}

proptest! {
    /// Whatever is done in whatever order: one loan at a time, and whoever keeps asking gets it.
    #[test]
    fn one_loan_and_no_dead_end(deeds in prop::collection::vec(deed(), 1..120)) {
        let (reserve, mut now) = (Reserve::new(64), Instant::now());
        let mut waiters: Vec<Option<Waiter>> = (0..5).map(|_| None).collect();
        let mut loan: Option<Loan> = None;
        for deed in deeds {
            match deed {
                Deed::LineUp(n) => waiters[n] = Some(Waiter::new(&reserve, "x")),
                Deed::Take(n) => if let Some(waiter) = &mut waiters[n] && let Some(taken) = waiter.take(now) {
                    prop_assert!(loan.is_none(), "two loans at a time");
                    loan = Some(taken);
                    waiters[n] = None;
                },
                Deed::Leave(n) => waiters[n] = None,
                Deed::GiveBack => loan = None,
                Deed::Later(ms) => now += Duration::from_millis(ms),
            }
        }
        drop(loan);
        // Those who stand there without asking hold one who asks up for one turn each, no longer.
        let mut last = Waiter::new(&reserve, "last");
        let mut turns = 0;
        while last.take(now).is_none() {
            turns += 1;
            prop_assert!(turns <= 12, "it never came to its turn");
            now += LOOK_AGAIN;
        }
    }
}

#[test]
fn an_answer_counts_as_a_whole_until_its_last_handle_is_gone() {
    let held = Held::default();
    let (one, other) = (held.answer(), held.answer());
    one.add(100);
    let part = Arc::clone(&one);
    part.add(20);
    other.add(7);
    assert_eq!(held.bytes(), 127);
    drop(one);
    assert_eq!(held.bytes(), 127, "a part of it is still in use");
    drop(part);
    assert_eq!(held.bytes(), 7);
    drop(other);
    assert_eq!(held.bytes(), 0);
}
