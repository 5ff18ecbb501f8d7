//! Serial consoles: how each family opens one after the login, and what may not be typed into it.

/// How a console is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Port of the SSH service.
    pub port: u16,
    /// Prompts to wait for, and what is then typed; none: the login opens the console.
    pub steps: &'static [(&'static str, &'static str)],
    /// What leaves the console: it is typed when the last reader goes, and taken out of what callers type.
    pub escape: &'static [u8],
}

const DIRECT: Entry = Entry {
    port: 22,
    steps: &[],
    escape: b"~.",
};

/// How the console of a family is opened; or why it is not.
pub fn entry(protocol: &str, family: &str) -> Result<Entry, String> {
    match protocol {
        "IPMI" => return Err("its console is IPMI, which the gateway does not speak; use SSH".to_owned()),
        // Lenovo's machines with AMI's BMC: the login opens the console.
        "SSHLenovo" => return Ok(DIRECT),
        _ => {}
    }
    Ok(match family {
        "iDRAC" => Entry {
            port: 22,
            steps: &[("racadm>>", "connect com2\r")],
            escape: &[0x1c],
        },
        "iLO" => Entry {
            port: 22,
            steps: &[("hpiLO->", "vsp\r")],
            escape: b"\x1b(",
        },
        // Only two sessions fit: one that was left open is ended first.
        "XCC" => Entry {
            port: 22,
            steps: &[("system>", "console kill 1\r"), ("system>", "console 1\r")],
            escape: b"\x1b(",
        },
        "OpenBMC" => Entry { port: 2200, ..DIRECT },
        "Supermicro" | "AMI" | "Intel" | "iRMC" | "CIMC" => {
            return Err(format!("a console over SSH: that of {family} is IPMI serial-over-LAN"));
        }
        _ if protocol == "SSH" => DIRECT,
        _ => return Err("a known console: set consoleProtocol to SSH where the login opens it".to_owned()),
    })
}

/// Keeps a sequence from being typed, also in pieces: its last byte is left out, and the rest of it does nothing.
#[derive(Debug, Clone)]
pub struct Filter {
    escape: &'static [u8],
    /// How much of the sequence was let through last.
    matched: usize,
}

impl Filter {
    /// For one sequence.
    pub fn new(escape: &'static [u8]) -> Self {
        Self { escape, matched: 0 }
    }

    /// What may pass.
    pub fn pass(&mut self, typed: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.escape.get(self.matched) == Some(byte) {
                if self.matched + 1 == self.escape.len() {
                    continue;
                }
                self.matched += 1;
            } else {
                // No sequence here repeats its first byte: a new beginning can only be this byte.
                self.matched = usize::from(self.escape.len() > 1 && self.escape.first() == Some(byte));
            }
            out.push(*byte);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_their_entries() {
        assert_eq!(entry("", "iDRAC").unwrap().steps, [("racadm>>", "connect com2\r")]);
        assert_eq!(entry("SSH", "OpenBMC").unwrap().port, 2200);
        assert_eq!(entry("SSHLenovo", "AMI").unwrap(), DIRECT);
        assert!(entry("IPMI", "iLO").is_err() && entry("SSH", "AMI").is_err() && entry("", "Other").is_err());
    }

    #[test]
    fn the_way_out_cannot_be_typed() {
        let typed = |escape: &'static [u8], pieces: &[&[u8]]| {
            let mut filter = Filter::new(escape);
            pieces.iter().flat_map(|p| filter.pass(p)).collect::<Vec<u8>>()
        };
        for (escape, pieces, out) in [
            (&[0x1c][..], &[&b"a\x1cb\x1c"[..]][..], &b"ab"[..]),
            (b"\x1b(", &[b"a\x1b(b"], b"a\x1bb"),
            (b"\x1b(", &[b"\x1b[A"], b"\x1b[A"),
            (b"\x1b(", &[b"\x1b\x1b[A"], b"\x1b\x1b[A"),
            (b"\x1b(", &[b"\x1b", b"((", b"("], b"\x1b"),
            (b"\x1b(", &[b"\x1b\x1b("], b"\x1b\x1b"),
            (b"~.", &[b"~", b"."], b"~"),
            (b"~.", &[b"~", b"x.y"], b"~x.y"),
        ] {
            assert_eq!(typed(escape, pieces), out, "{pieces:?}");
        }
    }
}
