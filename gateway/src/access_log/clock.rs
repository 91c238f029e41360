//! Points in time as text.

use std::time::{SystemTime, UNIX_EPOCH};

use super::write::{show, write_thousandths};

/// Turns points in time into text. The part up to the second is kept, since it is nearly always the same.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: Option<i64>,
    rfc3339: Vec<u8>,
    local: Vec<u8>,
}

impl Clock {
    /// `2026-11-22T18:38:00.123Z`
    pub(super) fn rfc3339(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let millis = self.set(time);
        out.extend_from_slice(&self.rfc3339);
        out.push(b'.');
        write_thousandths(out, millis);
        out.push(b'Z');
    }

    /// `2026-11-22T18:38:00+00:00`
    pub(super) fn iso8601(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        self.set(time);
        out.extend_from_slice(&self.rfc3339);
        out.extend_from_slice(b"+00:00");
    }

    /// `22/Nov/2026:18:38:00 +0000`
    pub(super) fn local(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        self.set(time);
        out.extend_from_slice(&self.local);
    }

    /// Prepares the texts and returns the milliseconds.
    fn set(&mut self, time: SystemTime) -> u32 {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        // A clock before 1970 is not set; there is nothing better to write.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        if self.second != Some(second) {
            let (year, month, day) = civil(second.div_euclid(86_400));
            let of_day = second.rem_euclid(86_400);
            let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
            self.rfc3339.clear();
            show(
                &mut self.rfc3339,
                format_args!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}"),
            );
            let name = usize::try_from(month - 1)
                .ok()
                .and_then(|index| MONTHS.get(index))
                .unwrap_or(&"Jan");
            self.local.clear();
            show(
                &mut self.local,
                format_args!("{day:02}/{name}/{year:04}:{h:02}:{m:02}:{s:02} +0000"),
            );
            self.second = Some(second);
        }
        since.subsec_millis()
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years begin in March
/// here, so that the leap day is the last one.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn points_in_time_have_their_date() {
        for (seconds, want, local) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (
                951_782_400,
                "2000-02-29T00:00:00.000Z",
                "29/Feb/2000:00:00:00 +0000",
            ),
            (
                1_795_372_681,
                "2026-11-22T18:38:01.000Z",
                "22/Nov/2026:18:38:01 +0000",
            ),
            (
                4_107_542_399,
                "2100-02-28T23:59:59.000Z",
                "28/Feb/2100:23:59:59 +0000",
            ),
            (
                4_107_542_400,
                "2100-03-01T00:00:00.000Z",
                "01/Mar/2100:00:00:00 +0000",
            ),
        ] {
            let mut clock = Clock::default();
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let mut out = Vec::new();
            clock.rfc3339(&mut out, time);
            assert_eq!(std::str::from_utf8(&out), Ok(want));
            out.clear();
            clock.local(&mut out, time);
            assert_eq!(std::str::from_utf8(&out), Ok(local));
            out.clear();
            clock.iso8601(&mut out, time);
            assert_eq!(out, want.replace(".000Z", "+00:00").as_bytes());
        }
    }
}
