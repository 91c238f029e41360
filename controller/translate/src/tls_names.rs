//! Versions and cipher suites of TLS by the names that nginx and OpenSSL have for them.

use crate::report::quoted;

/// The versions in a list such as that of `ssl_protocols`.
#[derive(Debug, Default)]
pub(crate) struct Versions<'a> {
    pub(crate) v1_2: bool,
    pub(crate) v1_3: bool,
    /// Versions that are not spoken.
    pub(crate) left_out: Vec<&'a str>,
}

/// Reads a list of versions, of which at least one is spoken.
pub(crate) fn versions(text: &str) -> Result<Versions<'_>, String> {
    let mut versions = Versions::default();
    for name in text.split_whitespace() {
        match name {
            "TLSv1.2" => versions.v1_2 = true,
            "TLSv1.3" => versions.v1_3 = true,
            "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1" => versions.left_out.push(name),
            _ => return Err(format!("{} is no version", quoted(name))),
        }
    }
    if versions.v1_2 || versions.v1_3 {
        return Ok(versions);
    }
    Err("it names neither TLSv1.2 nor TLSv1.3, and older versions are not spoken".to_owned())
}

/// A suite of TLS 1.2. `ssl_ciphers` says nothing about TLS 1.3, as in OpenSSL.
struct Suite {
    openssl: &'static str,
    iana: &'static str,
    /// What lists call it besides [`COMMON`].
    words: &'static [&'static str],
}

/// The suites that rustls has, in the order of OpenSSL.
static SUITES: [Suite; 6] = [
    Suite {
        openssl: "ECDHE-ECDSA-AES256-GCM-SHA384",
        iana: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        words: &["ECDSA", "aECDSA", "AES", "AES256", "AESGCM", "FIPS"],
    },
    Suite {
        openssl: "ECDHE-RSA-AES256-GCM-SHA384",
        iana: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        words: &["aRSA", "AES", "AES256", "AESGCM", "FIPS"],
    },
    Suite {
        openssl: "ECDHE-ECDSA-CHACHA20-POLY1305",
        iana: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        words: &["ECDSA", "aECDSA", "CHACHA20"],
    },
    Suite {
        openssl: "ECDHE-RSA-CHACHA20-POLY1305",
        iana: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        words: &["aRSA", "CHACHA20"],
    },
    Suite {
        openssl: "ECDHE-ECDSA-AES128-GCM-SHA256",
        iana: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        words: &["ECDSA", "aECDSA", "AES", "AES128", "AESGCM", "FIPS"],
    },
    Suite {
        openssl: "ECDHE-RSA-AES128-GCM-SHA256",
        iana: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        words: &["aRSA", "AES", "AES128", "AESGCM", "FIPS"],
    },
];

/// Words for all of them.
const COMMON: [&str; 9] = [
    "ALL", "DEFAULT", "ECDH", "HIGH", "TLSv1.2", "ECDHE", "EECDH", "kECDHE", "kEECDH",
];

/// Words that OpenSSL has for suites of which rustls has none.
const WITHOUT_SUITES: [&str; 52] = [
    "3DES",
    "ADH",
    "AECDH",
    "AES128-CCM",
    "AESCCM",
    "AESCCM8",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "CBC",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "DES",
    "DH",
    "DHE",
    "DSS",
    "EDH",
    "EXP",
    "EXPORT",
    "IDEA",
    "LOW",
    "MD5",
    "MEDIUM",
    "NULL",
    "PSK",
    "RC2",
    "RC4",
    "RSA",
    "SEED",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA384",
    "SRP",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "aDSS",
    "aNULL",
    "aPSK",
    "aSRP",
    "eNULL",
    "kDHE",
    "kEDH",
    "kPSK",
    "kRSA",
    "kSRP",
    "kECDHEPSK",
];

impl Suite {
    fn is(&self, word: &str) -> bool {
        word == self.openssl
            || word == self.iana
            || COMMON.contains(&word)
            || self.words.contains(&word)
    }

    /// Is it all of these words, which `+` joins?
    fn is_all(&self, words: &str) -> bool {
        words.split('+').all(|word| self.is(word))
    }
}

/// What is left of a list of cipher suites.
#[derive(Debug)]
pub(crate) struct Suites<'a> {
    /// Suites of TLS 1.2 by their IANA names, best first; never none.
    pub(crate) names: Vec<&'static str>,
    /// What is named and not there.
    pub(crate) left_out: Vec<&'a str>,
}

impl Suites<'_> {
    /// Are these all that there are, so that nothing is narrowed?
    pub(crate) fn are_all(&self) -> bool {
        self.names.len() == SUITES.len()
    }
}

/// Reads a list as OpenSSL does: names and words are added, `-` takes away, `!` takes away for good, `+` moves to the
/// end. What is not known matters only if nothing is left.
pub(crate) fn suites(text: &str) -> Result<Suites<'_>, String> {
    let mut chosen: Vec<&Suite> = Vec::new();
    let mut banned: Vec<&str> = Vec::new();
    let mut left_out = Vec::new();
    let words = text.split([':', ',', ' ']).map(str::trim);
    for word in words.filter(|word| !word.is_empty()) {
        if let Some(words) = word.strip_prefix('!') {
            if !is_known(words) {
                left_out.push(word);
            }
            chosen.retain(|suite| !suite.is_all(words));
            banned.push(words);
        } else if let Some(words) = word.strip_prefix('-') {
            if !is_known(words) {
                left_out.push(word);
            }
            chosen.retain(|suite| !suite.is_all(words));
        } else if let Some(words) = word.strip_prefix('+') {
            // A stable sort: those that match come after those that do not.
            chosen.sort_by_key(|suite| suite.is_all(words));
        } else if word == "@STRENGTH" {
            chosen.sort_by_key(|suite| suite.words.contains(&"AES128"));
        } else if let Some(level) = word.strip_prefix("@SECLEVEL=") {
            // All of them are above the third level.
            if !matches!(level, "0" | "1" | "2" | "3") {
                return Err(format!("{} cannot be kept", quoted(word)));
            }
        } else {
            let found = SUITES.iter().filter(|suite| suite.is_all(word));
            let found: Vec<_> = found.collect();
            // Named by their IANA names they are there anyway.
            let is_13 = word.starts_with("TLS_AES_") || word.starts_with("TLS_CHACHA20_");
            if found.is_empty() && !is_13 {
                left_out.push(word);
            }
            for suite in found {
                let is_banned = banned.iter().any(|words| suite.is_all(words));
                if !is_banned && chosen.iter().all(|one| one.iana != suite.iana) {
                    chosen.push(suite);
                }
            }
        }
    }
    if chosen.is_empty() {
        return Err("none of its TLS 1.2 cipher suites is available".to_owned());
    }
    Ok(Suites {
        names: chosen.iter().map(|suite| suite.iana).collect(),
        left_out,
    })
}

/// Are these words of OpenSSL's? Names of suites are not looked at.
fn is_known(words: &str) -> bool {
    words.split('+').all(|word| {
        word.contains('-')
            || word.starts_with("TLS_")
            || WITHOUT_SUITES.contains(&word)
            || SUITES.iter().any(|suite| suite.is(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `openssl ciphers -tls1_2 LIST` prints, without what rustls does not have, in short: the authentication and
    /// the cipher.
    #[test]
    fn lists_are_read_as_openssl_reads_them() {
        let short = |name: &str| {
            let name = name.trim_start_matches("TLS_ECDHE_");
            let (who, cipher) = name.split_once("_WITH_").unwrap();
            let cipher = match cipher {
                "AES_256_GCM_SHA384" => "256",
                "AES_128_GCM_SHA256" => "128",
                _ => "CC20",
            };
            format!("{}{cipher}", who.chars().next().unwrap())
        };
        for (list, want) in [
            ("HIGH:!aNULL:!MD5", "E256 R256 ECC20 RCC20 E128 R128"),
            ("FIPS", "E256 R256 E128 R128"),
            ("DEFAULT", "E256 R256 ECC20 RCC20 E128 R128"),
            ("ECDHE-RSA-AES128-GCM-SHA256", "R128"),
            ("EECDH+AESGCM:EDH+AESGCM", "E256 R256 E128 R128"),
            ("ECDHE+AESGCM:!ECDSA", "R256 R128"),
            ("!ECDSA:ECDHE+AESGCM", "R256 R128"),
            ("HIGH:-AES:AES128", "ECC20 RCC20 E128 R128"),
            ("HIGH:+CHACHA20", "E256 R256 E128 R128 ECC20 RCC20"),
            ("AES128:AES256:@STRENGTH", "E256 R256 E128 R128"),
            ("aRSA+AES128 aRSA+CHACHA20", "R128 RCC20"),
            ("DHE-RSA-AES256-GCM-SHA384:CHACHA20", "ECC20 RCC20"),
            (
                "ECDHE-ECDSA-AES128-GCM-SHA256,ECDHE-RSA-AES128-GCM-SHA256",
                "E128 R128",
            ),
            (
                "HIGH:!kRSA:!SHA1:@SECLEVEL=2",
                "E256 R256 ECC20 RCC20 E128 R128",
            ),
        ] {
            let read = suites(list).unwrap();
            let names: Vec<_> = read.names.iter().map(|name| short(name)).collect();
            assert_eq!(names.join(" "), want, "{list}");
        }
        for nothing in [
            "",
            "AES128-SHA",
            "HIGH:!ECDHE",
            "kRSA+AES",
            "RC4:MEDIUM",
            "HIGH:!ECDHE:ECDHE",
            "HIGH:@SECLEVEL=5",
        ] {
            assert!(suites(nothing).is_err(), "{nothing}");
        }
        assert_eq!(
            suites("HIGH:DHE-RSA-AES128-SHA").unwrap().left_out,
            ["DHE-RSA-AES128-SHA"]
        );
        assert_eq!(suites("HIGH:!AESGMC:!MD5").unwrap().left_out, ["!AESGMC"]);
    }

    #[test]
    fn at_least_one_version_is_spoken() {
        let of = |text| versions(text).map(|read| (read.v1_2, read.v1_3)).ok();
        assert_eq!(of("TLSv1.2 TLSv1.3"), Some((true, true)));
        assert_eq!(of("TLSv1 TLSv1.1 TLSv1.2"), Some((true, false)));
        assert_eq!(of("TLSv1.3"), Some((false, true)));
        for nothing in ["", "TLSv1.1", "TLSv1.4", "1.2"] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
