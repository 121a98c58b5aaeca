//! By what domains run: kvm where the host can, emulation where it may.

use std::fmt;
use std::fs::OpenOptions;

use super::StepFault;
use crate::config::DomainTypeChoice;
use crate::libvirt::Libvirt;

/// libvirt's domain type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DomainType {
    /// By the CPU.
    Kvm,
    /// By emulation.
    Qemu,
    /// By libvirt's test driver, which runs nothing and knows no other type.
    Test,
}

impl DomainType {
    /// As in domain XML.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
            Self::Test => "test",
        }
    }

    /// What `choice` means on this host now.
    pub(super) fn choose(choice: DomainTypeChoice, libvirt: &Libvirt) -> Result<Self, StepFault> {
        if libvirt.is_test_driver() {
            return Ok(Self::Test);
        }
        Self::decide(choice, || Kvm::read().obstacle())
    }

    fn decide(
        choice: DomainTypeChoice,
        obstacle: impl FnOnce() -> Option<String>,
    ) -> Result<Self, StepFault> {
        match choice {
            DomainTypeChoice::Qemu => Ok(Self::Qemu),
            DomainTypeChoice::Auto => Ok(obstacle().map_or(Self::Kvm, |_| Self::Qemu)),
            DomainTypeChoice::Kvm => match obstacle() {
                None => Ok(Self::Kvm),
                Some(reason) => Err(StepFault::NoKvm { reason }),
            },
        }
    }
}

impl fmt::Display for DomainType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Qemu => "emulation (qemu)",
            Self::Test => "libvirt's test driver, which runs nothing",
        })
    }
}

/// What kvm needs. A node /dev/kvm alone says little: in a container it may be there without a CPU or a module
/// behind it.
struct Kvm {
    cpu_can: bool,
    device: std::io::Result<()>,
}

impl Kvm {
    fn read() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            // Other architectures do not list it; there the device says all.
            cpu_can: !cfg!(any(target_arch = "x86_64", target_arch = "x86")) || virtualises(&cpuinfo),
            device: OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .map(drop),
        }
    }

    fn obstacle(&self) -> Option<String> {
        match (self.cpu_can, &self.device) {
            (false, _) => Some("the CPU has neither vmx nor svm".into()),
            (true, Err(error)) => Some(format!("/dev/kvm does not open: {error}")),
            (true, Ok(())) => None,
        }
    }
}

pub(super) fn virtualises(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_both_the_cpu_and_the_device() {
        let denied = || Err(std::io::ErrorKind::PermissionDenied.into());
        let obstacle = |cpu_can, device| Kvm { cpu_can, device }.obstacle();
        assert_eq!(obstacle(true, Ok(())), None);
        assert!(obstacle(false, Ok(())).unwrap().contains("neither vmx nor svm"));
        assert!(obstacle(true, denied()).unwrap().contains("permission denied"));
        assert!(virtualises("flags\t\t: fpu vmx sse\n"));
        assert!(!virtualises("flags\t\t: fpu svm_lock\nbugs : svm\n"));
    }

    #[test]
    fn auto_falls_back_and_kvm_fails_with_the_reason() {
        let none = || None;
        let some = || Some("no device".to_owned());
        use DomainTypeChoice::{Auto, Kvm, Qemu};
        assert_eq!(DomainType::decide(Auto, none).unwrap(), DomainType::Kvm);
        assert_eq!(DomainType::decide(Auto, some).unwrap(), DomainType::Qemu);
        assert_eq!(DomainType::decide(Kvm, none).unwrap(), DomainType::Kvm);
        assert_eq!(DomainType::decide(Qemu, none).unwrap(), DomainType::Qemu);
        let fault = DomainType::decide(Kvm, some).unwrap_err();
        assert!(fault.to_string().contains("no device"), "{fault}");
    }
}
