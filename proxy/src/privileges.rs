//! Gives up root: account, groups and capabilities, once and for good, before the first thread starts.
//!
//! What is kept is the right to bind low ports and, only when workers have accounts of their own, the rights to start,
//! stop and hand files to those. Afterwards the kernel is asked whether it is so: a drop that did not happen is an error.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::unistd::{User, geteuid, getuid, initgroups, setresgid, setresuid};

/// Which rights stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Ports below 1,024.
    BindLowPorts,
    /// Those, and workers with accounts of their own. The shim that becomes another account is a new program, so these
    /// rights are ambient; it gives them up before it starts the worker. Who takes over such a process can become root:
    /// use it only where workers need it.
    BindLowPortsAndSwitchUsers,
}

/// An account of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

/// Why privileges were not given up. The process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// No such account.
    #[error("user \"{0}\": there is no such account; create it with: useradd --system {0}")]
    UnknownUser(String),
    /// The account is root.
    #[error("user \"{0}\" is root; name an account without privileges, or leave server.user out")]
    Root(String),
    /// Only root can become somebody else.
    #[error("cannot change to user \"{0}\" without being root; start as root, or leave server.user out")]
    NotRoot(String),
    /// Other threads would keep their privileges.
    #[error("privileges must be given up before threads start, but there are {0}")]
    Threads(usize),
    /// The system refused.
    #[error("cannot change to user \"{user}\": {what}: {reason}")]
    Refused {
        /// The account.
        user: String,
        /// What was being done.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The kernel says that it did not happen.
    #[error("changed to user \"{user}\", but {what} is {found} instead of {wanted}")]
    NotDropped {
        /// The account.
        user: String,
        /// Field of /proc/thread-self/status.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
}

impl Account {
    /// Looks an account up.
    ///
    /// # Errors
    /// When there is none of that name or it cannot be looked up.
    pub fn find(name: &str) -> Result<Self, PrivilegeError> {
        let unreadable = |error: Errno| PrivilegeError::Refused {
            user: name.to_owned(),
            what: "look it up",
            reason: error.desc().to_owned(),
        };
        let user = User::from_name(name).map_err(unreadable)?;
        let user = user.ok_or_else(|| PrivilegeError::UnknownUser(name.to_owned()))?;
        Ok(Self { name: name.to_owned(), uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }
}

/// Becomes `user`: its uid, its gid, its supplementary groups and nobody else's, no capabilities but those of `keep`, and
/// no way to gain any by starting a program.
///
/// A process that already is that account only loses the ways to gain privileges. Call it after everything that needs
/// root (sockets, keys, state folders) and before the first thread.
///
/// # Errors
/// See [`PrivilegeError`]; after one, the process must end.
pub fn drop_to(user: &str, keep: Keep) -> Result<Account, PrivilegeError> {
    let account = Account::find(user)?;
    if account.uid == 0 {
        return Err(PrivilegeError::Root(account.name));
    }
    require_one_thread()?;
    drop_thread_to(account, keep)
}

/// The whole of it for the calling thread; the account changes for all.
fn drop_thread_to(account: Account, keep: Keep) -> Result<Account, PrivilegeError> {
    if getuid().as_raw() == account.uid && geteuid().as_raw() == account.uid {
        forbid_new_privileges(&account)?;
        return Ok(account);
    }
    if !geteuid().is_root() {
        return Err(PrivilegeError::NotRoot(account.name));
    }
    let kept = kept_capabilities(&account, keep)?;
    change_account(&account, &kept)?;
    set_capabilities(&account, keep, &kept)?;
    forbid_new_privileges(&account)?;
    verify(&account, &kept)?;
    Ok(account)
}

fn require_one_thread() -> Result<(), PrivilegeError> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(PrivilegeError::Threads(threads));
    }
    Ok(())
}

/// The capabilities of `keep` that we have: a container may have taken some away.
fn kept_capabilities(account: &Account, keep: Keep) -> Result<CapsHashSet, PrivilegeError> {
    let permitted =
        caps::read(None, CapSet::Permitted).map_err(|error| refused(account, "read capabilities", error))?;
    let wanted: &[Capability] = match keep {
        Keep::BindLowPorts => &[Capability::CAP_NET_BIND_SERVICE],
        Keep::BindLowPortsAndSwitchUsers => &[
            Capability::CAP_NET_BIND_SERVICE,
            Capability::CAP_SETUID,
            Capability::CAP_SETGID,
            Capability::CAP_KILL,
            Capability::CAP_CHOWN,
            Capability::CAP_DAC_OVERRIDE,
        ],
    };
    Ok(wanted.iter().copied().filter(|capability| permitted.contains(capability)).collect())
}

fn change_account(account: &Account, kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    let changed = |what, result: Result<(), Errno>| result.map_err(|error| refused(account, what, error.desc()));
    // Only root may narrow the bounding set. That it could not be narrowed is no danger once new privileges are forbidden.
    for capability in caps::all().difference(kept) {
        let _ = caps::drop(None, CapSet::Bounding, *capability);
    }
    let name = CString::new(account.name.as_str()).map_err(|error| refused(account, "read its name", error))?;
    let (uid, gid) = (account.uid.into(), account.gid.into());
    caps::securebits::set_keepcaps(true).map_err(|error| refused(account, "keep capabilities", error))?;
    changed("set its groups", initgroups(&name, gid))?;
    changed("set its group", setresgid(gid, gid, gid))?;
    changed("set its user", setresuid(uid, uid, uid))?;
    caps::securebits::set_keepcaps(false).map_err(|error| refused(account, "keep capabilities", error))
}

fn set_capabilities(account: &Account, keep: Keep, kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    let set =
        |what, set, value: &CapsHashSet| caps::set(None, set, value).map_err(|error| refused(account, what, error));
    let handed_on = match keep {
        Keep::BindLowPorts => CapsHashSet::new(),
        Keep::BindLowPortsAndSwitchUsers => {
            let own = Capability::CAP_NET_BIND_SERVICE;
            kept.iter().copied().filter(|capability| *capability != own).collect()
        }
    };
    set("raise capabilities", CapSet::Effective, kept)?;
    set("limit capabilities", CapSet::Permitted, kept)?;
    set("limit inherited capabilities", CapSet::Inheritable, &handed_on)?;
    set("limit ambient capabilities", CapSet::Ambient, &handed_on)
}

fn forbid_new_privileges(account: &Account) -> Result<(), PrivilegeError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| refused(account, "forbid new privileges", error))
}

/// Asks the kernel.
fn verify(account: &Account, kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    let text = fs::read_to_string("/proc/thread-self/status")
        .map_err(|error| refused(account, "read /proc/thread-self/status", error))?;
    let fields: BTreeMap<&str, String> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")))
        .collect();
    let mask = kept.iter().fold(0, |mask, capability| mask | capability.bitmask());
    let four = |id: u32| format!("{id} {id} {id} {id}");
    let rows = [
        ("Uid", four(account.uid)),
        ("Gid", four(account.gid)),
        ("CapPrm", format!("{mask:016x}")),
        ("CapEff", format!("{mask:016x}")),
        ("NoNewPrivs", "1".to_owned()),
    ];
    for (what, wanted) in rows {
        let found = fields.get(what).cloned().unwrap_or_default();
        if found != wanted {
            return Err(PrivilegeError::NotDropped { user: account.name.clone(), what, found, wanted });
        }
    }
    let groups = fields.get("Groups").map(String::as_str).unwrap_or_default();
    if groups.split(' ').any(|group| group == "0") && account.gid != 0 {
        let wanted = "without 0".to_owned();
        return Err(PrivilegeError::NotDropped {
            user: account.name.clone(),
            what: "Groups",
            found: groups.to_owned(),
            wanted,
        });
    }
    Ok(())
}

fn refused(account: &Account, what: &'static str, reason: impl std::fmt::Display) -> PrivilegeError {
    PrivilegeError::Refused { user: account.name.clone(), what, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set in the process that drops its privileges; holds what to keep.
    const CHILD: &str = "TIDEGATE_TEST_DROP";

    /// Runs the named test again, alone and in one thread, with [`CHILD`] set; returns what it printed.
    #[expect(
        clippy::disallowed_methods,
        reason = "privileges can only be given up once, so a process of its own does it"
    )]
    fn in_a_process(test: &str, keep: &str) -> String {
        let output = std::process::Command::new("/proc/self/exe")
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, keep)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn this_test() -> String {
        std::thread::current().name().filter(|name| *name != "main").map(str::to_owned).unwrap_or_default()
    }

    fn drop_here(keep: &str) {
        let keep = if keep == "bind" { Keep::BindLowPorts } else { Keep::BindLowPortsAndSwitchUsers };
        drop_thread_to(Account::find("nobody").unwrap(), keep).unwrap();
        println!("{}", fs::read_to_string("/proc/thread-self/status").unwrap());
        println!("port 1: {:?}", std::net::TcpListener::bind("127.0.0.1:1").is_ok());
        println!("shadow: {:?}", fs::read("/etc/shadow").is_ok());
        if keep == Keep::BindLowPorts {
            println!("root again: {:?}", nix::unistd::setuid(0.into()).is_ok());
        }
    }

    #[test]
    fn root_is_gone_and_only_the_ports_stay() {
        if let Ok(keep) = std::env::var(CHILD) {
            return drop_here(&keep);
        }
        if !geteuid().is_root() {
            let told = drop_thread_to(Account::find("nobody").unwrap(), Keep::BindLowPorts);
            assert!(matches!(told, Err(PrivilegeError::NotRoot(_))));
            return;
        }
        let test = this_test();
        let nobody = Account::find("nobody").unwrap();
        let bind = in_a_process(&test, "bind");
        for line in [
            format!("Uid:\t{0}\t{0}\t{0}\t{0}", nobody.uid),
            format!("Gid:\t{0}\t{0}\t{0}\t{0}", nobody.gid),
            "CapEff:\t0000000000000400".to_owned(),
            "CapPrm:\t0000000000000400".to_owned(),
            "CapAmb:\t0000000000000000".to_owned(),
            "CapInh:\t0000000000000000".to_owned(),
            "NoNewPrivs:\t1".to_owned(),
            "port 1: true".to_owned(),
            "shadow: false".to_owned(),
            "root again: false".to_owned(),
        ] {
            assert!(bind.lines().any(|candidate| candidate == line), "no {line:?} in {bind}");
        }
        let switch = in_a_process(&test, "switch");
        for line in ["CapEff:\t00000000000004e3", "CapAmb:\t00000000000000e3", "shadow: true"] {
            assert!(switch.lines().any(|candidate| candidate == line), "no {line:?} in {switch}");
        }
    }

    #[test]
    fn bad_accounts_are_named() {
        let told = drop_to("no-such-user", Keep::BindLowPorts).unwrap_err().to_string();
        assert_eq!(
            told,
            "user \"no-such-user\": there is no such account; create it with: useradd --system no-such-user"
        );
        assert!(matches!(drop_to("root", Keep::BindLowPorts), Err(PrivilegeError::Root(_))));
        assert!(matches!(drop_to("nobody", Keep::BindLowPorts), Err(PrivilegeError::Threads(_))), "tests have threads");
    }
}
