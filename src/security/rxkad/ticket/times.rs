//! Whether a ticket is valid now. Seconds since 1970, in 64 bits: differences must not wrap.

use super::NEVER;
use crate::security::rxkad::RxkadError;

/// How far two clocks may be apart.
const SKEW: i64 = 900;
/// The longest that a ticket lasts: 30 days.
pub(super) const LIFE_MAX: i64 = 2_592_000;
const DAY: i64 = 86_400;

/// The rules of OpenAFS, in its order.
pub(super) fn check(start: i64, end: i64, now: i64) -> Result<(), RxkadError> {
    let expires = end != NEVER;
    let has_start = start != 0;
    if start >= end || start > now + SKEW + LIFE_MAX {
        return Err(RxkadError::BadTicket);
    }
    if has_start && expires && end - start > LIFE_MAX {
        return Err(RxkadError::BadTicket);
    }
    if expires && end + SKEW < now {
        let is_ancient = has_start && now - start > LIFE_MAX + DAY;
        return Err(if is_ancient { RxkadError::BadTicket } else { RxkadError::Expired });
    }
    if has_start && start - SKEW > now {
        return Err(RxkadError::NoAuth);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn every_limit_holds_on_both_sides() {
        use RxkadError::{BadTicket, Expired, NoAuth};
        let cases = [
            (NOW, NOW, Err(BadTicket)),
            (NOW, NOW + 1, Ok(())),
            (NOW + 1, NOW, Err(BadTicket)),
            // Not yet.
            (NOW + SKEW, NOW + SKEW + 1, Ok(())),
            (NOW + SKEW + 1, NOW + SKEW + 2, Err(NoAuth)),
            (NOW + SKEW + LIFE_MAX, NOW + SKEW + LIFE_MAX + 1, Err(NoAuth)),
            (NOW + SKEW + LIFE_MAX + 1, NOW + SKEW + LIFE_MAX + 2, Err(BadTicket)),
            // Too long.
            (NOW, NOW + LIFE_MAX, Ok(())),
            (NOW, NOW + LIFE_MAX + 1, Err(BadTicket)),
            (NOW, NEVER, Ok(())),
            (0, NOW + LIFE_MAX * 2, Ok(())),
            (0, NEVER, Ok(())),
            // No longer.
            (NOW - SKEW - 10, NOW - SKEW, Ok(())),
            (NOW - SKEW - 10, NOW - SKEW - 1, Err(Expired)),
            (0, NOW - SKEW - 1, Err(Expired)),
            (NOW - LIFE_MAX - DAY, NOW - DAY, Err(Expired)),
            (NOW - LIFE_MAX - DAY - 1, NOW - DAY - 1, Err(BadTicket)),
        ];
        for (start, end, expected) in cases {
            assert_eq!(check(start, end, NOW), expected, "{} to {}", start - NOW, end - NOW);
        }
    }

    #[test]
    fn small_starts_and_far_ends_do_not_wrap() {
        assert_eq!(check(1, 10, 5), Ok(()));
        assert_eq!(check(1, NEVER, 0), Ok(()));
        assert_eq!(check(0, 253_402_300_799, NOW), Ok(()));
        assert_eq!(check(-62_135_596_800, 253_402_300_799, NOW), Err(RxkadError::BadTicket));
    }
}
