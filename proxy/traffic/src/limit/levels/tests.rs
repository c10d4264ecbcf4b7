//! What a table remembers, and what it forgets.

use std::time::Duration;

use super::*;
use crate::mix::mix;

const SECOND: u64 = 1_000_000_000;

fn take(table: &Table, client: u64, most: u64, now: Instant) -> u64 {
    table.claim(Claim { client, most, price: SECOND }, now)
}

#[test]
fn a_level_rises_with_requests_and_falls_with_time() {
    let (table, start) = (Table::new(1024), Instant::now());
    assert_eq!(table.in_use(start), 0);
    assert_eq!(take(&table, 7, SECOND, start), 0);
    assert_eq!(take(&table, 7, SECOND, start), SECOND);
    assert_eq!(take(&table, 7, SECOND, start), 2 * SECOND, "over the most: not charged");
    assert_eq!(take(&table, 7, SECOND, start), 2 * SECOND);
    assert_eq!(take(&table, 8, SECOND, start), 0, "somebody else");
    assert_eq!(table.in_use(start), 2);
    let later = start + Duration::from_millis(1_500);
    assert_eq!(table.claim(Claim { client: 7, most: u64::MAX, price: 0 }, later), SECOND / 2, "looking costs nothing");
    assert_eq!(take(&table, 7, SECOND, later), SECOND / 2);
    assert_eq!(table.in_use(later), 1);
    assert_eq!(take(&table, 7, SECOND, start + Duration::from_secs(60)), 0);
    assert_eq!(take(&table, 9, u64::MAX, start - Duration::from_secs(60)), 0, "a clock of another thread may lag");
}

#[test]
fn a_full_set_forgets_who_is_least_ahead() {
    let (table, now) = (Table::new(1024), Instant::now());
    // One set: hashes that agree in the bits that choose it.
    let client = |number: u64| number << 48 | 3;
    for number in 1..=WAYS as u64 {
        for _ in 0..number {
            take(&table, client(number), u64::MAX, now);
        }
    }
    assert_eq!(take(&table, client(99), u64::MAX, now), 0);
    assert_eq!(table.in_use(now), WAYS);
    let level = |number| table.claim(Claim { client: client(number), most: 0, price: 0 }, now);
    assert_eq!(level(1), 0, "forgotten");
    assert_eq!(level(99), SECOND);
    for number in 2..=WAYS as u64 {
        assert_eq!(level(number), number * SECOND);
    }
}

#[test]
fn threads_share_one_account() {
    let (table, now) = (Table::new(1024), Instant::now());
    let admitted: usize = std::thread::scope(|scope| {
        let race = || (0..1_000).filter(|_| take(&table, 5, 99 * SECOND, now) <= 99 * SECOND).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(race)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 100);
}

/// Honest clients at half their rate, while a flood of clients that come once goes by.
fn sweep(flood: u64, entries: usize) {
    let (table, start) = (Table::new(entries), Instant::now());
    let (period, honest) = (SECOND / 10, 1_000);
    let mut rejected = 0;
    for number in 0..flood {
        // The whole flood within a minute.
        let now = start + Duration::from_nanos(60 * SECOND / flood * number);
        take(&table, mix(number ^ 0x5eed), 0, now);
        if number % (flood / (300 * honest)).max(1) == 0 {
            let turn = number / (flood / (300 * honest)).max(1);
            let client = mix(!(turn % honest));
            let level = table.claim(Claim { client, most: 0, price: period }, now);
            rejected += usize::from(level > 0);
        }
    }
    assert_eq!(rejected, 0);
    let bytes: usize = table.parts.iter().map(|part| part.lock().capacity() * size_of::<Set>()).sum();
    assert!(bytes <= 64 << 20, "{bytes} bytes");
    assert!(bytes <= 2 * entries * size_of::<Entry>(), "{bytes} bytes for {entries} entries");
}

#[test]
fn a_flood_of_new_clients_costs_honest_ones_nothing() {
    sweep(600_000, 16_384);
}

#[test]
#[ignore = "long: ten million clients"]
fn a_flood_of_ten_million_clients_costs_honest_ones_nothing() {
    sweep(10_000_000, 262_144);
    sweep(10_000_000, 4_194_304);
}
