//! From the name in a Kerberos 5 ticket to the name, instance and cell that AFS knows.

use super::NAME_MAX;
use crate::security::rxkad::{Principal, RxkadError};

/// Services whose instance is a host: it is cut at its first dot.
const OF_A_HOST: [&str; 38] = [
    "host",
    "discuss",
    "rvdsrv",
    "sample",
    "olc",
    "pop",
    "sis",
    "rfs",
    "imap",
    "ftp",
    "ecat",
    "daemon",
    "gnats",
    "moira",
    "prms",
    "mandarin",
    "register",
    "changepw",
    "sms",
    "afpserver",
    "gdss",
    "news",
    "abs",
    "nfs",
    "tftp",
    "http",
    "khttp",
    "pgpsigner",
    "irc",
    "mandarin-agent",
    "write",
    "palladium",
    "smtp",
    "lmtp",
    "ldap",
    "acap",
    "argus",
    "mupdate",
];
/// Services whose instance says nothing: it is left out.
const WITHOUT_INSTANCE: [&str; 2] = ["kadmin", "zephyr"];

/// The principal of these name components in this realm.
///
/// OpenAFS takes every name that *begins* like one of the services for that service, so that `popeye/admin`
/// becomes `pop`; here the whole name counts.
pub(super) fn principal(components: &[&str], realm: &str) -> Result<Principal, RxkadError> {
    let (name, instance) = match *components {
        [name] => (name, ""),
        [service, host] if OF_A_HOST.contains(&service) => {
            let (first, _) = host.split_once('.').ok_or(RxkadError::BadTicket)?;
            (if service == "host" { "rcmd" } else { service }, first)
        }
        [service, _] if WITHOUT_INSTANCE.contains(&service) => (service, ""),
        [name, instance] => (name, instance),
        _ => return Err(RxkadError::BadTicket),
    };
    // `a.b` would later be taken for the name `a` with the instance `b`.
    if name.is_empty() || components[0].contains('.') {
        return Err(RxkadError::BadTicket);
    }
    // Cut short they could be somebody else's. A NUL ends a name for everybody who uses C.
    let fits = |text: &str| text.len() <= NAME_MAX && !text.contains('\0');
    if !fits(name) || !fits(instance) || realm.contains('\0') {
        return Err(RxkadError::BadTicket);
    }
    let end = (0..=NAME_MAX.min(realm.len())).rev().find(|end| realm.is_char_boundary(*end));
    let cell = &realm[..end.unwrap_or(0)];
    let [name, instance, cell] = [name, instance, cell].map(str::to_owned);
    Ok(Principal { name, instance, cell })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(components: &[&str]) -> Option<String> {
        principal(components, "R").ok().map(|found| found.to_string())
    }

    #[test]
    fn users_and_services_get_their_afs_names() {
        let cases: [(&[&str], Option<&str>); 16] = [
            (&["carol"], Some("carol@R")),
            (&["carol", "admin"], Some("carol.admin@R")),
            (&["host", "www.example.org"], Some("rcmd.www@R")),
            (&["host", "www"], None),
            (&["imap", "mail.example.org"], Some("imap.mail@R")),
            (&["imap"], Some("imap@R")),
            (&["imapd", "mail.example.org"], Some("imapd.mail.example.org@R")),
            (&["rcmd", "a.b"], Some("rcmd.a.b@R")),
            (&["kadmin", "admin"], Some("kadmin@R")),
            (&["zephyr", "zephyr"], Some("zephyr@R")),
            (&["a.b"], None),
            (&["a.b", "c"], None),
            (&[], None),
            (&["a", "b", "c"], None),
            (&[""], None),
            (&["a\0b"], None),
        ];
        for (components, expected) in cases {
            assert_eq!(named(components).as_deref(), expected, "{components:?}");
        }
    }

    #[test]
    fn long_names_are_refused_and_long_cells_cut() {
        let long = "x".repeat(NAME_MAX + 1);
        assert!(named(&[&long[1..]]).is_some() && named(&[&long]).is_none());
        assert!(named(&["a", &long[1..]]).is_some() && named(&["a", &long]).is_none());
        assert_eq!(principal(&["a"], &long).unwrap().cell, long[1..]);
    }
}
