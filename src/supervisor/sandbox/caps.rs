//! Capabilities, for a daemon that was started as root: its processes keep none
//! of root's powers but the reading of files that other users own, and the
//! gate, where the state directory is another user's, the writing there.
//! `no_new_privs` keeps an exec from giving them back.

use std::path::Path;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::handover::Role;

/// Drops capabilities from the calling thread and what it starts. Does nothing
/// for an ordinary user.
///
/// # Errors
/// What the kernel says.
pub fn drop_for(role: Role, state_dir: &Path) -> std::io::Result<()> {
    let have = capabilities(None)?;
    let keep = have.permitted & wanted(role, state_dir);
    if have.permitted == keep {
        return Ok(());
    }
    // Inheritable, because root's exec keeps the permitted set only as far as
    // the inheritable and bounding sets reach.
    set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: keep & have.inheritable,
        },
    )?;
    Ok(())
}

fn wanted(role: Role, state_dir: &Path) -> CapabilitySet {
    use std::os::unix::fs::MetadataExt;
    match role {
        Role::Engine | Role::Egress => CapabilitySet::DAC_READ_SEARCH,
        Role::Gate => {
            let own = rustix::process::geteuid().as_raw();
            match std::fs::metadata(state_dir) {
                Ok(folder) if folder.uid() == own => CapabilitySet::empty(),
                _ => CapabilitySet::DAC_OVERRIDE,
            }
        }
    }
}
