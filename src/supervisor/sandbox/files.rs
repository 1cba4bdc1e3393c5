//! Landlock: which files each process may touch, and, from ABI 4 on, that gate
//! and engine have no TCP. From ABI 6 on no process of ours reaches another by
//! signal or abstract socket. In any ABI, a process in one domain cannot read
//! the memory, environment or descriptors of one outside it, root or not.
//!
//! Best effort: what the kernel lacks is left out and reported.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};

use crate::handover::Role;

/// The newest ABI that the rules below were thought through for.
const KNOWN: ABI = ABI::V6;

/// Folders and files beyond the fixed ones, by role.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// May be read, whole trees.
    pub read: Vec<PathBuf>,
    /// May be read and written, whole trees.
    pub write: Vec<PathBuf>,
    /// Plain files in them may be made, read, written and removed; nothing else,
    /// no folders either.
    pub files: Vec<PathBuf>,
    /// Device files that may be read, written and asked for what their drivers
    /// do (`ioctl`).
    pub devices: Vec<PathBuf>,
}

/// What every process needs to be started and to look at the machine. `/proc`
/// shows a process in a domain only itself where it matters.
const SYSTEM: [&str; 10] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/proc",
    "/sys",
    "/dev/urandom",
];

/// Where some distributions keep loader and libraries.
const STORES: [&str; 2] = ["/nix/store", "/gnu/store"];

/// What resolves names and checks certificates.
const NETWORK: [&str; 7] = [
    "/etc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/var/lib/ca-certificates",
    "/opt/etc/ssl",
];

/// Restricts the calling thread, and what it starts, to what this role may
/// touch. Returns the ABI in force, `None` where the kernel has no Landlock.
///
/// # Errors
/// When the rules themselves cannot be made: no descriptors left, for example.
pub fn restrict(role: Role, places: &Places) -> Result<Option<u32>, landlock::RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?;
    let rules = match role {
        // No rule for any port follows, so none is allowed.
        Role::Gate | Role::Engine => rules.handle_access(AccessNet::from_all(KNOWN))?,
        Role::Egress => rules.handle_access(AccessNet::BindTcp)?,
    };
    let status = allow(rules.create()?, role, places)?.restrict_self()?;
    Ok(abi_of(&status))
}

/// What this kernel offers, found by a thread that gives everything up.
/// `None` where it has no Landlock.
pub(super) fn abi() -> Option<u32> {
    let trial = || {
        let rules = Ruleset::default().handle_access(AccessFs::WriteFile).ok()?;
        abi_of(&rules.create().ok()?.restrict_self().ok()?)
    };
    std::thread::spawn(trial).join().ok().flatten()
}

fn abi_of(status: &RestrictionStatus) -> Option<u32> {
    match (&status.ruleset, &status.landlock) {
        (RulesetStatus::NotEnforced, _) => None,
        (_, LandlockStatus::Available { effective_abi, .. }) => Some(*effective_abi as u32),
        _ => None,
    }
}

/// Paths that are not there are left out.
fn allow(
    rules: RulesetCreated,
    role: Role,
    places: &Places,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let network: &[&str] = match role {
        Role::Egress => &NETWORK,
        Role::Gate | Role::Engine => &[],
    };
    rules
        // The binary itself, and what the loader starts it with.
        .add_rules(path_beneath_rules(
            ["/proc/self/exe"],
            read | AccessFs::Execute,
        ))?
        .add_rules(path_beneath_rules(loaders(), read | AccessFs::Execute))?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(network, read))?
        .add_rules(path_beneath_rules(
            ["/dev/null"],
            read | AccessFs::WriteFile,
        ))?
        .add_rules(path_beneath_rules(&places.read, read))?
        .add_rules(path_beneath_rules(
            &places.files,
            read | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::RemoveFile,
        ))?
        .add_rules(path_beneath_rules(
            &places.devices,
            read | AccessFs::WriteFile | AccessFs::IoctlDev,
        ))?
        .add_rules(path_beneath_rules(
            &places.write,
            // Plain files and folders: no device, fifo or socket is ever made.
            AccessFs::from_all(KNOWN)
                & !(AccessFs::Execute
                    | AccessFs::MakeChar
                    | AccessFs::MakeBlock
                    | AccessFs::MakeFifo
                    | AccessFs::MakeSock
                    | AccessFs::MakeSym
                    | AccessFs::IoctlDev),
        ))
}

/// The dynamic loader is executed by the kernel on the binary's behalf.
fn loaders() -> Vec<PathBuf> {
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64"]
        .iter()
        .map(Path::new)
        .filter(|folder| folder.is_dir())
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("ld-"))
        .map(|entry| entry.path())
        .chain(STORES.map(PathBuf::from))
        .collect()
}
