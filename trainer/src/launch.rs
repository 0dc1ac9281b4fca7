//! How the processes of one launch find each other, from the environment of torchrun, Slurm or MPI.

use anyhow::{Context, Result, anyhow, bail};

/// How the processes of one launch find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What started this process, for messages.
    pub launcher: &'static str,
    /// The name or address of rank 0's machine; with it there is always a port.
    pub address: Option<String>,
    /// The port where rank 0 listens.
    pub port: Option<u16>,
    /// Tells this launch from an earlier one of the same run.
    pub id: Option<String>,
}

impl Launch {
    /// Reads the environment; `None` if no launcher's variables are set.
    ///
    /// # Errors
    ///
    /// If a variable cannot be read as a port or as a list of hosts, or of address and port one alone is known.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// What lets a process in: `TINTYPE_TOKEN`, else what tells this launch from others.
    pub fn token(&self) -> String {
        let given = std::env::var("TINTYPE_TOKEN").ok().filter(|token| !token.is_empty());
        given.or_else(|| self.id.clone()).unwrap_or_default()
    }

    /// [`from_environment`](Self::from_environment) with a source of variables.
    ///
    /// # Errors
    ///
    /// As that.
    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        // From which `Rank` has its numbers, too.
        let Some([rank, ..]) = crate::rank::launcher(variable) else { return Ok(None) };
        let (launcher, id) = match rank {
            "RANK" => match variable("TORCHELASTIC_RUN_ID") {
                // Not with `TORCHELASTIC_RESTART_COUNT`, which machines count apart.
                Some(run) => ("torchrun", Some(run)),
                None => ("RANK and WORLD_SIZE", None),
            },
            "SLURM_PROCID" => {
                let id = variable("SLURM_JOB_ID").map(|job| {
                    let step = or_zero(variable("SLURM_STEP_ID"));
                    format!("{job}.{step}.{}", or_zero(variable("SLURM_RESTART_COUNT")))
                });
                ("srun", id)
            }
            // The second is that of Open MPI 4.
            "OMPI_COMM_WORLD_RANK" => {
                let id = variable("PMIX_NAMESPACE");
                ("Open MPI", id.or_else(|| variable("OMPI_MCA_ess_base_jobid")))
            }
            "PMI_RANK" => ("MPICH or Intel MPI", variable("PMI_JOBID")),
            _ => ("MVAPICH", variable("PMI_JOBID")),
        };
        let mut address = variable("MASTER_ADDR").map(|text| text.trim().to_string());
        let mut port = match variable("MASTER_PORT") {
            Some(text) => Some(port_number("MASTER_PORT", &text)?),
            None => None,
        };
        if launcher == "torchrun" {
            // torchrun itself listens at that port.
            let next = |port: u16| {
                port.checked_add(1).context("MASTER_PORT is 65535; ranks meet at the port after it")
            };
            port = port.map(next).transpose()?;
        }
        if launcher == "srun" {
            if address.is_none()
                && let Some(list) = variable("SLURM_STEP_NODELIST")
            {
                address = Some(first_host(&list)?);
            }
            if port.is_none() {
                port = slurm_port(variable)?;
            }
        }
        match (&address, port) {
            (Some(_), None) => bail!("MASTER_ADDR is known, but MASTER_PORT is not set"),
            (None, Some(_)) => bail!("MASTER_PORT is known, but MASTER_ADDR is not set"),
            _ => {}
        }
        let id = id.or_else(|| variable("TINTYPE_RUN")).map(|id| id.trim().to_string());
        Ok(Some(Self { launcher, address, port, id }))
    }
}

/// The number of restarts, or of a step; the launcher leaves out the first.
fn or_zero(text: Option<String>) -> String {
    text.map_or_else(|| "0".into(), |text| text.trim().to_string())
}

fn port_number(name: &str, text: &str) -> Result<u16> {
    match text.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => bail!("the environment variable {name} is {text:?}, not a port"),
    }
}

/// The port of a Slurm job: one that Slurm reserved for the step (`srun --resv-ports`), or else one that follows from
/// the job's number.
fn slurm_port(variable: impl Fn(&str) -> Option<String>) -> Result<Option<u16>> {
    let reserved = "SLURM_STEP_RESV_PORTS";
    if let Some(ports) = variable(reserved) {
        let first = ports.split([',', '-']).next().unwrap_or_default();
        return match port_number(reserved, first) {
            Ok(port) => Ok(Some(port)),
            Err(_) => {
                bail!("the environment variable {reserved} is {ports:?}, not a list of ports")
            }
        };
    }
    let Some(job) = variable("SLURM_JOB_ID") else { return Ok(None) };
    let Ok(number) = job.trim().parse::<u64>() else {
        bail!("the environment variable SLURM_JOB_ID is {job:?}, not a number");
    };
    let last = u16::try_from(number % 10_000).expect("it has four digits");
    Ok(Some(15_000 + last))
}

/// The first host of a list such as `a[01-04,7]-ib,b3`: `a01-ib`.
fn first_host(list: &str) -> Result<String> {
    let bad =
        || anyhow!("the environment variable SLURM_STEP_NODELIST is {list:?}, not a list of hosts");
    let mut host = String::new();
    let mut rest = list.trim();
    while let Some(at) = rest.find(['[', ']', ',']) {
        host.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        match &rest[at..=at] {
            "[" => {
                let (numbers, after) = after.split_once(']').ok_or_else(bad)?;
                host.push_str(first_number(numbers).ok_or_else(bad)?);
                rest = after;
            }
            "," => {
                rest = "";
            }
            _ => return Err(bad()),
        }
    }
    host.push_str(rest);
    let is_name = |c: char| !c.is_whitespace() && !c.is_control();
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(bad());
    }
    Ok(host)
}

/// The first of numbers such as `01-04,7`, with its zeros.
fn first_number(numbers: &str) -> Option<&str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        is_number(first) && is_number(last)
    };
    let all = numbers.split(',').all(is_range);
    all.then(|| numbers.split([',', '-']).next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Option<Launch>> {
        Launch::from_variables(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
        })
    }

    fn launch(variables: &[(&str, &str)]) -> Launch {
        with(variables).expect("it is read").expect("there is one")
    }

    fn error(variables: &[(&str, &str)]) -> String {
        with(variables).expect_err("it is refused").to_string()
    }

    fn expected(launcher: &'static str, place: Option<(&str, u16)>, id: Option<&str>) -> Launch {
        let address = place.map(|(address, _)| address.to_string());
        let port = place.map(|(_, port)| port);
        Launch { launcher, address, port, id: id.map(str::to_string) }
    }

    const BY_HAND: [(&str, &str); 2] = [("RANK", "1"), ("WORLD_SIZE", "2")];
    const SRUN: [(&str, &str); 2] = [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")];

    fn more<'a>(
        first: [(&'a str, &'a str); 2],
        others: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        [&first[..], others].concat()
    }

    #[test]
    fn torchrun_keeps_its_own_port() {
        let elastic = [
            ("MASTER_ADDR", "node1"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_RUN_ID", "abc"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let found = launch(&more(BY_HAND, &elastic));
        assert_eq!(found, expected("torchrun", Some(("node1", 29_501)), Some("abc")));
        let last = [("MASTER_ADDR", "a"), ("MASTER_PORT", "65535"), ("TORCHELASTIC_RUN_ID", "x")];
        assert!(error(&more(BY_HAND, &last)).contains("MASTER_PORT"));
    }

    #[test]
    fn variables_set_by_hand_are_taken_as_they_are() {
        assert_eq!(with(&[]).expect("it is read"), None);
        assert_eq!(with(&[("MASTER_ADDR", "a")]).expect("it is read"), None);
        let name = "RANK and WORLD_SIZE";
        assert_eq!(launch(&BY_HAND), expected(name, None, None));
        let run = [("TINTYPE_RUN", "monday"), ("MASTER_ADDR", ""), ("MASTER_PORT", " ")];
        assert_eq!(launch(&more(BY_HAND, &run)), expected(name, None, Some("monday")));
        let place = [("MASTER_ADDR", " 10.0.0.1"), ("MASTER_PORT", "29500 ")];
        let found = launch(&more(BY_HAND, &place));
        assert_eq!(found, expected(name, Some(("10.0.0.1", 29_500)), None));
        let text = error(&more(BY_HAND, &[("MASTER_ADDR", "a")]));
        assert!(text.contains("MASTER_PORT is not set"), "{text}");
        let text = error(&more(BY_HAND, &[("MASTER_PORT", "1")]));
        assert!(text.contains("MASTER_ADDR is not set"), "{text}");
        for port in ["0", "65536", "http", "-1"] {
            let text = error(&more(BY_HAND, &[("MASTER_ADDR", "a"), ("MASTER_PORT", port)]));
            assert!(text.contains(&format!("MASTER_PORT is \"{port}\"")), "{text}");
        }
    }

    #[test]
    fn slurm_says_where_rank_0_is() {
        let job = [("SLURM_JOB_ID", "1234567"), ("SLURM_STEP_NODELIST", "gpu[07-09],a1")];
        let found = launch(&more(SRUN, &job));
        assert_eq!(found, expected("srun", Some(("gpu07", 19_567)), Some("1234567.0.0")));
        let step = [("SLURM_STEP_ID", "3"), ("SLURM_RESTART_COUNT", "1")];
        let reserved = [("SLURM_STEP_RESV_PORTS", "12005-12006,12010")];
        let found = launch(&more(SRUN, &[&job[..], &step, &reserved].concat()));
        assert_eq!(found, expected("srun", Some(("gpu07", 12_005)), Some("1234567.3.1")));
        let master = [("MASTER_ADDR", "b2"), ("MASTER_PORT", "7000")];
        let found = launch(&more(SRUN, &[&job[..], &reserved, &master].concat()));
        assert_eq!(found, expected("srun", Some(("b2", 7000)), Some("1234567.0.0")));
        let bad: [(&str, &[(&str, &str)]); 4] = [
            ("SLURM_JOB_ID", &[("SLURM_JOB_ID", "x"), ("SLURM_STEP_NODELIST", "a1")]),
            ("SLURM_STEP_NODELIST", &[("SLURM_JOB_ID", "1"), ("SLURM_STEP_NODELIST", "a[1")]),
            ("SLURM_STEP_RESV_PORTS", &[("SLURM_STEP_RESV_PORTS", "(null)")]),
            ("MASTER_PORT", &[("SLURM_STEP_NODELIST", "a1")]),
        ];
        for (name, variables) in bad {
            let text = error(&more(SRUN, variables));
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn mpi_tells_its_launches_apart() {
        let open = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")];
        assert_eq!(launch(&open), expected("Open MPI", None, None));
        let old = [("OMPI_MCA_ess_base_jobid", "77"), ("TINTYPE_RUN", "x")];
        assert_eq!(launch(&more(open, &old)), expected("Open MPI", None, Some("77")));
        let new = [("PMIX_NAMESPACE", "prterun-a-9@1"), ("OMPI_MCA_ess_base_jobid", "77")];
        let found = launch(&more(open, &new));
        assert_eq!(found, expected("Open MPI", None, Some("prterun-a-9@1")));
        let place = [("MASTER_ADDR", "a"), ("MASTER_PORT", "5000"), ("PMI_JOBID", "5")];
        let mpich = more([("PMI_RANK", "0"), ("PMI_SIZE", "2")], &place);
        let place = Some(("a", 5000));
        assert_eq!(launch(&mpich), expected("MPICH or Intel MPI", place, Some("5")));
        let mvapich = [("MV2_COMM_WORLD_RANK", "0"), ("MV2_COMM_WORLD_SIZE", "2")];
        let found = launch(&more(mvapich, &[("TINTYPE_RUN", "x")]));
        assert_eq!(found, expected("MVAPICH", None, Some("x")));
    }

    #[test]
    fn the_first_host_of_a_list_is_found() {
        let lists = [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("a[01-04,7],b3", "a01"),
            ("b3,a[01-04,7]", "b3"),
            ("a[7]", "a7"),
            ("a[9-11]", "a9"),
            ("a[007,008]", "a007"),
            ("rack[2-3]node[001-128]", "rack2node001"),
            ("gpu-a[08,10-12]-eth0.cluster.example,x", "gpu-a08-eth0.cluster.example"),
            ("a[1-2]b[3]c[04-05],d[6-7]", "a1b3c04"),
            ("[1-2]", "1"),
            (" a1 ", "a1"),
            ("10.0.0.[1-4]", "10.0.0.1"),
        ];
        for (list, first) in lists {
            assert_eq!(first_host(list).expect(list), first, "{list}");
        }
        let bad = ["", ",", ",a", "a[", "a[1-2", "a]1", "a[]", "a[x]", "a[1-]", "a[-1]", "a[1,,2]"];
        for list in bad.into_iter().chain(["a[1[2]]", "a b", "a[1 - 2]"]) {
            let error = first_host(list).expect_err(list).to_string();
            assert!(error.contains("SLURM_STEP_NODELIST"), "{error}");
        }
    }
}
