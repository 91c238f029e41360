//! How much of a load one endpoint may have.

/// How many requests an endpoint may be working on where `in_flight` requests are spread over `endpoints`, and none of these is
/// to have more than `percent` of the average. The request that is about to be sent counts.
///
/// Since `percent` is at least 100, there is always one with room: all of them together have room for `in_flight + 1`.
pub fn room(percent: u32, in_flight: u32, endpoints: usize) -> u32 {
    let endpoints = u64::try_from(endpoints).unwrap_or(u64::MAX).max(1);
    let all = (u64::from(in_flight) + 1).saturating_mul(u64::from(percent.max(100)));
    u32::try_from(all.div_ceil(endpoints.saturating_mul(100))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_all_and_nobody_has_much_more_than_the_average() {
        for (percent, in_flight, endpoints, want, why) in [
            (125, 0, 10, 1, "the first request finds a place anywhere"),
            (125, 9, 10, 2, "1.25, rounded up"),
            (125, 99, 10, 13, "12.5, rounded up"),
            (200, 99, 10, 20, "twice the average"),
            (100, 99, 10, 10, "the average"),
            (
                50,
                99,
                10,
                10,
                "less than the average would leave requests over",
            ),
            (125, 7, 0, 10, "nobody is divided by"),
            (u32::MAX, u32::MAX, 1, u32::MAX, "no overflow"),
        ] {
            assert_eq!(room(percent, in_flight, endpoints), want, "{why}");
        }
    }
}
