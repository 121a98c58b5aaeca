//! What is true on the host, asked of the host and never of Hostler: the activation's marks, the kernel, restic's
//! repository, the processes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::pool::{Checksums, LoopPool};
use crate::programs::Site;

/// The host at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// The activation is up.
    pub active: bool,
    /// The pool.
    pub pool: Option<PoolTruth>,
}

/// The pool at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTruth {
    /// Its size, as the kernel has it.
    pub size: u64,
    /// Its devices, as the kernel names them.
    pub members: BTreeSet<String>,
    /// The ids of restic's snapshots.
    pub backups: BTreeSet<String>,
    /// All its files.
    pub files: Checksums,
}

impl Truth {
    /// Looks.
    pub fn of(site: &Site, pool: Option<&LoopPool>) -> Self {
        Self {
            active: site.path("active").exists(),
            pool: pool.map(|pool| PoolTruth {
                size: pool.size(),
                members: pool.members().into_iter().collect(),
                backups: kept(&pool.repository().join("snapshots")).into_iter().collect(),
                files: pool.checksums(),
            }),
        }
    }
}

/// What an operation that has ended should have taken away: snapshots, staging, locks, journals, processes.
pub fn leftovers(site: &Site, pool: Option<&LoopPool>, own: &[u32]) -> Vec<String> {
    let mut left: Vec<_> = names(&site.path("agent-state/journal"))
        .into_iter()
        .filter(|name| name.ends_with(".log"))
        .map(|name| format!("the journal {name}"))
        .collect();
    let mut roots = vec![site.dir.path().to_owned()];
    if let Some(pool) = pool {
        let inside = names(&pool.mount_point().join(".hostler"));
        left.extend(inside.iter().map(|name| format!(".hostler/{name} in the pool")));
        let locks = kept(&pool.repository().join("locks"));
        left.extend(locks.iter().map(|name| format!("restic's lock {name}")));
        roots.push(pool.path(""));
    }
    left.extend(processes(&roots, own));
    left
}

/// What is wrong with journals: damaged or torn ones that were put aside.
pub fn damaged_journals(site: &Site) -> Vec<String> {
    let mut aside = names(&site.path("agent-state/journal"));
    aside.retain(|name| name.ends_with(".damaged"));
    aside
}

/// Processes that work on the world and are none of its programs.
fn processes(roots: &[PathBuf], own: &[u32]) -> Vec<String> {
    let pids = names(Path::new("/proc")).into_iter();
    let strangers = pids.filter(|pid| pid.parse().is_ok_and(|pid: u32| !own.contains(&pid)));
    let working = strangers.filter_map(|pid| {
        // A process that has ended meanwhile reads as nothing.
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (arguments, environment) = (read("cmdline"), read("environ"));
        let about = |root: &PathBuf| {
            let root = root.as_os_str().as_encoded_bytes();
            let root = root.strip_suffix(b"/").unwrap_or(root);
            [&arguments, &environment]
                .iter()
                .any(|text| text.windows(root.len()).any(|part| part == root))
        };
        roots.iter().any(about).then(|| {
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            format!("process {pid}: {arguments}")
        })
    });
    working.collect()
}

/// What restic keeps in a folder of its repository. A restic that is killed leaves a part of a file under another name,
/// which means nothing to the next one.
fn kept(folder: &Path) -> Vec<String> {
    let mut ids = names(folder);
    ids.retain(|name| name.len() == 64);
    ids
}

/// The names in a folder; none when it is not there.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.collect()
}
