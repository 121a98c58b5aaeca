//! Makes the kept inputs that nobody writes by hand: messages, from the types as they are now.
//!
//!   cargo run -p hostler-fuzz --example seeds

use std::fs;
use std::path::PathBuf;

use hostler_common::operation::pack;
use hostler_common::rpc::hostler::agent::v1::ask::Question;
use hostler_common::rpc::hostler::agent::v1::session_request::Message as ToCoordinator;
use hostler_common::rpc::hostler::agent::v1::session_response::Message as ToAgent;
use hostler_common::rpc::hostler::agent::v1::*;
use hostler_common::rpc::hostler::enrol::v1 as enrol;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1 as operations;
use hostler_fuzz::coordinator::calls::input;
use hostler_fuzz::coordinator::sessions::TOKEN;
use hostler_fuzz::coordinator::{TOKEN_ID_PLACEHOLDER, TOKEN_PLACEHOLDER};
use hostler_fuzz::frames::join;
use hostler_pki::request::KeyRequest;
use prost::Message as _;

/// Stands for the first operation that has not ended.
const OPERATION: &str = "00000000-0000-7000-8000-000000000000";
const OTHER: &str = "019aa111-2222-7333-8444-555566667777";

fn main() -> std::io::Result<()> {
    calls()?;
    site_calls()?;
    sessions()?;
    desk()
}

fn keep(target: &str, name: &str, input: &[u8]) -> std::io::Result<()> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), input)
}

fn calls() -> std::io::Result<()> {
    const OPERATIONS: &str = "/operations.v1.OperationsService/";
    const FLEET: &str = "/hostler.fleet.v1.FleetService/";
    let (id, ids) = ("hv1".to_owned(), vec!["hv1".to_owned(), "hv2".to_owned()]);
    let operation = OPERATION.to_owned();
    let proposal = n0stack::ProposeOperationRequest {
        name: "default".into(),
        lock_for_seconds: 60,
        proposing_peer_token: "t".into(),
        log_message: "disk swap".into(),
        ..Default::default()
    };
    let restore = fleet::RestoreBackupRequest {
        id: "latest".into(),
        target: "/srv/restore".into(),
        paths: vec!["desktops/a.qcow2".into()],
        ..Default::default()
    };
    let messages = [
        (OPERATIONS, "ListHypervisors", Vec::new()),
        (
            OPERATIONS,
            "CreateHypervisor",
            operations::CreateHypervisorRequest { id: id.clone() }.encode_to_vec(),
        ),
        (
            OPERATIONS,
            "DestroyHypervisor",
            operations::DestroyHypervisorRequest { id: id.clone() }.encode_to_vec(),
        ),
        (
            OPERATIONS,
            "CreateHypervisors",
            operations::CreateHypervisorsRequest { ids: ids.clone() }.encode_to_vec(),
        ),
        (
            OPERATIONS,
            "DestroyHypervisors",
            operations::DestroyHypervisorsRequest { ids }.encode_to_vec(),
        ),
        (
            OPERATIONS,
            "ExpandStorage",
            operations::ExpandStorageRequest { min_bytes: 1024 }.encode_to_vec(),
        ),
        (
            OPERATIONS,
            "ShrinkStorage",
            operations::ShrinkStorageRequest { max_bytes: 1024 }.encode_to_vec(),
        ),
        (OPERATIONS, "CreateBackup", Vec::new()),
        (
            FLEET,
            "GetHypervisor",
            fleet::GetHypervisorRequest { id }.encode_to_vec(),
        ),
        (FLEET, "WatchHypervisors", Vec::new()),
        (
            FLEET,
            "ListOperations",
            fleet::ListOperationsRequest {
                page_size: 1,
                resource: "hv1".into(),
                unended: true,
                page_token: OTHER.into(),
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "GetOperation",
            fleet::GetOperationRequest {
                id: operation.clone(),
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "WatchOperation",
            fleet::WatchOperationRequest {
                id: operation.clone(),
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "ResolveOperation",
            fleet::ResolveOperationRequest {
                id: operation.clone(),
                note: "looked".into(),
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "CancelOperation",
            fleet::CancelOperationRequest {
                id: operation,
                reason: "why".into(),
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "ProposeOperation",
            fleet::ProposeOperationRequest {
                proposal: Some(proposal),
                reason: "why".into(),
            }
            .encode_to_vec(),
        ),
        (FLEET, "ListStoragePools", Vec::new()),
        (
            FLEET,
            "ExpandStorage",
            fleet::ExpandStorageRequest {
                pool: "default".into(),
                min_bytes: 1,
                dry_run: true,
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "ShrinkStorage",
            fleet::ShrinkStorageRequest {
                pool: "default".into(),
                max_bytes: 1,
                dry_run: false,
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "CreateBackup",
            fleet::CreateBackupRequest {
                pool: "default".into(),
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "ListBackups",
            fleet::ListBackupsRequest {
                pool: "default".into(),
            }
            .encode_to_vec(),
        ),
        (
            FLEET,
            "VerifyBackup",
            fleet::VerifyBackupRequest {
                read_percent: 5,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (FLEET, "RestoreBackup", restore.encode_to_vec()),
        (
            FLEET,
            "DeleteBackup",
            fleet::DeleteBackupRequest {
                id: "abcd".into(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ];
    messages
        .iter()
        .try_for_each(|(service, rpc, message)| keep_call(service, rpc, message))
}

fn keep_call(service: &str, rpc: &str, message: &[u8]) -> std::io::Result<()> {
    let name = format!("{}-{rpc}", service.split(['/', '.']).nth(1).unwrap_or_default());
    let path = format!("{service}{rpc}");
    keep("coordinator_calls", &name, &input(&path, message))
}

fn site_calls() -> std::io::Result<()> {
    const SITE: &str = "/hostler.site.v1.SiteService/";
    const ENROL: &str = "/hostler.enrol.v1.EnrolService/";
    let (host, reason) = ("h1".to_owned(), "disk swap".to_owned());
    let text = |placeholder: &[u8]| String::from_utf8_lossy(placeholder).into_owned();
    let lost = site::LoseAgentRequest {
        host: host.clone(),
        reason: reason.clone(),
    };
    let hypervisor = site::ExpungeHypervisorRequest {
        id: "hv1".into(),
        reason: reason.clone(),
    };
    let pool = site::ExpungeStoragePoolRequest {
        name: "default".into(),
        reason: reason.clone(),
    };
    let token = site::CreateTokenRequest {
        host,
        expires_seconds: 60,
    };
    let revoked_token = site::RevokeTokenRequest {
        id: text(TOKEN_ID_PLACEHOLDER),
    };
    let revoked = site::RevokeIdentityRequest {
        subject: "agent/h1".into(),
        reason,
        unknown: false,
    };
    let audit = site::ListAuditRequest {
        identity: "h1".into(),
        at_most: 10,
        ..Default::default()
    };
    let key = KeyRequest::new().map_err(std::io::Error::other)?;
    let enrolled = enrol::EnrolRequest {
        token: text(TOKEN_PLACEHOLDER),
        csr_der: key.csr_der().to_vec(),
        agent_version: "0.1.0".into(),
    };
    for (service, rpc, message) in [
        (SITE, "GetStatus", Vec::new()),
        (SITE, "ListAgents", Vec::new()),
        (SITE, "LoseAgent", lost.encode_to_vec()),
        (SITE, "ExpungeHypervisor", hypervisor.encode_to_vec()),
        (SITE, "ExpungeStoragePool", pool.encode_to_vec()),
        (SITE, "CreateToken", token.encode_to_vec()),
        (SITE, "ListTokens", Vec::new()),
        (SITE, "RevokeToken", revoked_token.encode_to_vec()),
        (SITE, "RevokeIdentity", revoked.encode_to_vec()),
        (SITE, "ListRevocations", Vec::new()),
        (SITE, "ListAudit", audit.encode_to_vec()),
        (ENROL, "Enrol", enrolled.encode_to_vec()),
    ] {
        keep_call(service, rpc, &message)?;
    }
    Ok(())
}

fn sessions() -> std::io::Result<()> {
    let hypervisor = HypervisorReport {
        id: "hv1".into(),
        kind: HypervisorKind::Guest.into(),
        observed: Observed::InService.into(),
        detail: "up".into(),
        inventory: Some(Inventory {
            cpu_threads: 8,
            memory_mb: 1024,
            gpus: vec![Gpu {
                pci_address: "0000:65:00.0".into(),
                brand: "NVIDIA".into(),
                model: "T4".into(),
            }],
            shared_storage: vec![SharedStorage {
                path: "/shared".into(),
                usable: true,
                problem: String::new(),
            }],
            libvirt: Some(Libvirt {
                uri: "qemu:///system".into(),
                version: "9.0".into(),
                problem: String::new(),
            }),
            running_domains: vec![Domain {
                name: "d".into(),
                uuid: OTHER.into(),
            }],
        }),
    };
    let device = PoolDevice {
        path: "/dev/sdb".into(),
        role: DeviceRole::Member.into(),
        capacity_bytes: 1 << 40,
        ..Default::default()
    };
    let pool = PoolReport {
        name: "default".into(),
        backend: "btrfs".into(),
        size_bytes: 1 << 40,
        devices: vec![device],
        ..Default::default()
    };
    let report = ToCoordinator::Report(HostReport {
        inventory: None,
        hypervisors: vec![hypervisor],
        pools: vec![pool],
    });
    let proposal = n0stack::ProposeOperationRequest {
        name: "hv1".into(),
        lock_for_seconds: 30,
        log_message: "step 1/1".into(),
        proposing_peer_token: TOKEN.into(),
        ..Default::default()
    };
    let propose = |request_id, fence| {
        ToCoordinator::Propose(Propose {
            request_id,
            operation_id: OPERATION.into(),
            proposal: Some(proposal.clone()),
            fence,
            newest_fence: fence,
        })
    };
    let finish = ToCoordinator::Finish(Finish {
        operation_id: OPERATION.into(),
        fence: 1,
        outcome: Outcome::Done.into(),
        message: "done".into(),
        process_token: TOKEN.into(),
    });
    let measure = Measure {
        what: "move".into(),
        done_bytes: 1,
        total_bytes: 2,
        ..Default::default()
    };
    let measured = ToCoordinator::Measured(Measured {
        operation_id: OPERATION.into(),
        fence: 1,
        measure: Some(measure),
    });
    let backups = ListBackupsAnswer {
        backups: vec![Backup {
            id: "abcd".into(),
            tags: vec!["x".into()],
            ..Default::default()
        }],
    };
    let answer = ToCoordinator::AskAnswer(AskAnswer {
        request_id: 1,
        answer: Some(ask_answer::Answer::ListBackups(backups)),
    });
    let dry_run = DryRunAnswer {
        lines: vec!["add".into()],
        outcome: "grows".into(),
        ..Default::default()
    };
    let other = ToCoordinator::AskAnswer(AskAnswer {
        request_id: 1,
        answer: Some(ask_answer::Answer::DryRun(dry_run)),
    });
    let hello = ToCoordinator::Hello(Hello {
        host: "h1".into(),
        process_token: TOKEN.into(),
        protocol: 1,
        journaled_operation_ids: vec![OTHER.into()],
        ..Default::default()
    });
    let whole = vec![
        report.clone(),
        propose(1, 0),
        measured.clone(),
        propose(2, 1),
        finish.clone(),
        report.clone(),
    ];
    for (name, messages) in [
        ("report", vec![report]),
        ("propose", vec![propose(1, 0), propose(2, 1), propose(3, 7)]),
        ("finish", vec![finish]),
        ("measured", vec![propose(1, 0), measured]),
        (
            "answers",
            vec![answer, other, ToCoordinator::Heartbeat(Heartbeat {})],
        ),
        ("hello-twice", vec![hello]),
        ("whole", whole),
    ] {
        let messages: Vec<_> = messages
            .into_iter()
            .map(|message| {
                SessionRequest {
                    message: Some(message),
                }
                .encode_to_vec()
            })
            .collect();
        keep("coordinator_sessions", name, &join(&messages))?;
    }
    Ok(())
}

fn desk() -> std::io::Result<()> {
    let request = pack(&operations::CreateHypervisorRequest { id: "hv1".into() });
    let restore = pack(&fleet::RestoreBackupRequest {
        id: "latest".into(),
        paths: vec!["a".into()],
        ..Default::default()
    });
    let offer = |id: &str, request: &prost_types::Any| {
        ToAgent::Offer(Offer {
            operation_id: id.into(),
            resource: "hv1".into(),
            fence: 0,
            request: Some(request.clone()),
            attempt: 1,
        })
    };
    let answered = |request_id, accepted, fence| {
        ToAgent::ProposeAnswer(ProposeAnswer {
            request_id,
            accepted,
            fence,
            reason: "no".into(),
        })
    };
    let welcome = ToAgent::Welcome(Welcome {
        epoch: 1,
        heartbeat_interval_ms: 5000,
        lease_seconds: 30,
        ended_operation_ids: vec![OTHER.into()],
        ..Default::default()
    });
    let ended = ToAgent::FinishAnswer(FinishAnswer {
        operation_id: OTHER.into(),
        accepted: true,
        reason: String::new(),
    });
    let cancel = ToAgent::Cancel(Cancel {
        operation_id: OTHER.into(),
        by: "ada".into(),
    });
    let refused = RefusedHypervisor {
        id: "hv1".into(),
        reason: "no".into(),
    };
    let reported = ToAgent::ReportAnswer(ReportAnswer {
        refused: vec![refused],
        refused_pools: Vec::new(),
    });
    let ask = |question| {
        ToAgent::Ask(Ask {
            request_id: 1,
            pool: "default".into(),
            question: Some(question),
        })
    };
    let questions = vec![
        ask(Question::DryRun(restore.clone())),
        ask(Question::ListBackups(ListBackupsQuestion {})),
    ];
    for (name, messages) in [
        (
            "taken",
            vec![
                offer(OTHER, &request),
                answered(1, true, 1),
                cancel.clone(),
                answered(2, true, 1),
                ended.clone(),
            ],
        ),
        (
            "refused",
            vec![
                offer(OTHER, &request),
                answered(1, false, 0),
                offer(OTHER, &restore),
                answered(2, true, 9),
            ],
        ),
        (
            "two",
            vec![
                offer(OTHER, &request),
                offer(OPERATION, &restore),
                answered(1, true, 1),
                answered(2, true, 2),
                welcome,
                ended,
            ],
        ),
        ("asked", questions),
        (
            "told",
            vec![
                reported,
                ToAgent::Heartbeat(Heartbeat {}),
                ToAgent::Refused(Refused { reason: "no".into() }),
                cancel,
            ],
        ),
    ] {
        let messages: Vec<_> = messages
            .into_iter()
            .map(|message| {
                SessionResponse {
                    message: Some(message),
                }
                .encode_to_vec()
            })
            .collect();
        keep("agent_desk", name, &join(&messages))?;
    }
    Ok(())
}
