//! Within which an address of loopback is one process's: the network namespace of one host since it was booted.

use std::sync::LazyLock;

use crate::fault;

static OWN: LazyLock<Option<String>> = LazyLock::new(|| {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let network = std::fs::read_link("/proc/self/ns/net").ok()?;
    // `net:[4026531840]`
    let network = network.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
    let boot = boot.trim().split('-').next()?;
    Some(format!("{boot}-{network}"))
});

/// That of this process; none where the system doesn't tell.
pub fn own() -> Option<&'static str> {
    fault::scope().or(OWN.as_deref())
}

/// Whether an address, `host:port`, is another process's in another scope.
pub fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_other_addresses() {
        let check = |address, expected| assert_eq!(is_loopback(address), expected, "{address}");
        check("127.0.0.1:8080", true);
        check("127.1.2.3:80", true);
        check("[::1]:8080", true);
        check("localhost:8080", true);
        check("10.0.0.1:8080", false);
        check("[fe80::1]:8080", false);
        check("localhost.example.org:8080", false);
        assert!(own().is_some_and(|own| !own.contains('@')));
    }
}
