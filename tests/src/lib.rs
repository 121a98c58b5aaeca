//! A fleet in one process: a real coordinator with its store on a real disk, clients and simulated agents
//! over real mutual TLS on loopback. The simulation ends at the agents: what hosts do is tested for real in
//! the agent's own tests and by the tests that run the programs.

pub mod agent;
pub mod clock;
pub mod crash;
pub mod disk;
pub mod enrolled;
pub mod fleet;
pub mod kept;
pub mod newcomer;
pub mod owner;
pub mod pki;
pub mod pool;
pub mod programs;
pub mod progress;
pub mod raw;
pub mod shown;
pub mod simulation;
pub mod wait;
