//! The table of modules: Ansible's that a lab needs, and the lab's own.
//!
//! Arguments are named, typed and defaulted as in ansible-core 2.19, `ansible.posix` and
//! `community.general`. What is left out on purpose: `SELinux` and file attributes, which
//! no lab machine has.

use super::kind::ArgKind::{Bool, Dict, Float, Int, List, Mode, Path, Raw, RawList, Str};
use super::kind::Collection::{Builtin, General, Lab, Posix};
use super::kind::Rule::{Exclusive, Needs, OneOf, Requires};
use super::kind::{ArgKind, ArgSpec, Collection, ModuleSpec, Rule, Runs};

/// Returns every module there is.
pub(super) fn modules() -> impl Iterator<Item = &'static ModuleSpec> {
    [COMMANDS, FILES, SYSTEM, NETWORK, FACTS, CONTROLLER, LAB]
        .into_iter()
        .flatten()
}

impl ArgSpec {
    pub(super) const fn new(name: &'static str, kind: ArgKind) -> Self {
        Self {
            name,
            aliases: &[],
            kind,
            required: false,
            default: None,
            choices: &[],
        }
    }

    pub(super) const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    pub(super) const fn or(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }

    pub(super) const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    pub(super) const fn one_of(self, choices: &'static [&'static str]) -> Self {
        Self { choices, ..self }
    }
}

impl ModuleSpec {
    /// A module the agent runs, with check mode and no rules.
    pub(super) const fn new(
        name: &'static str,
        collection: Collection,
        args: &'static [ArgSpec],
    ) -> Self {
        Self {
            name,
            collection,
            aliases: &[],
            free_form: None,
            args,
            rules: &[],
            open: false,
            runs: Runs::Agent,
            supports_check: true,
        }
    }

    pub(super) const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    pub(super) const fn free_form(self, argument: &'static str) -> Self {
        Self {
            free_form: Some(argument),
            ..self
        }
    }

    pub(super) const fn rules(self, rules: &'static [Rule]) -> Self {
        Self { rules, ..self }
    }

    pub(super) const fn runs(self, runs: Runs) -> Self {
        Self { runs, ..self }
    }

    pub(super) const fn open(self) -> Self {
        Self { open: true, ..self }
    }

    pub(super) const fn no_check(self) -> Self {
        Self {
            supports_check: false,
            ..self
        }
    }
}

const fn arg(name: &'static str, kind: ArgKind) -> ArgSpec {
    ArgSpec::new(name, kind)
}

const MODE: ArgSpec = arg("mode", Mode);
const OWNER: ArgSpec = arg("owner", Str);
const GROUP: ArgSpec = arg("group", Str);
const BACKUP: ArgSpec = arg("backup", Bool).or("false");
const VALIDATE: ArgSpec = arg("validate", Str);
/// The file a module edits, under all the names it had over the years.
const EDITED_PATH: ArgSpec = arg("path", Path)
    .required()
    .also(&["dest", "destfile", "name"]);

const COMMANDS: &[ModuleSpec] = &[
    ModuleSpec::new(
        "command",
        Builtin,
        &[
            arg("cmd", Str).also(&["_raw_params"]),
            arg("argv", List),
            arg("creates", Path),
            arg("removes", Path),
            arg("chdir", Path),
            arg("stdin", Str),
            arg("stdin_add_newline", Bool).or("true"),
            arg("strip_empty_ends", Bool).or("true"),
            arg("executable", Path),
            arg("expand_argument_vars", Bool).or("true"),
        ],
    )
    .free_form("cmd")
    .rules(&[OneOf(&["cmd", "argv"]), Exclusive(&["cmd", "argv"])]),
    ModuleSpec::new("shell", Builtin, SHELL_ARGS).free_form("cmd"),
    ModuleSpec::new(
        "raw",
        Builtin,
        &[
            arg("cmd", Str).required().also(&["_raw_params"]),
            arg("executable", Path),
        ],
    )
    .free_form("cmd")
    .no_check(),
    ModuleSpec::new(
        "script",
        Builtin,
        &[
            arg("cmd", Str).required().also(&["_raw_params"]),
            arg("creates", Path),
            arg("removes", Path),
            arg("chdir", Path),
            arg("executable", Path),
        ],
    )
    .free_form("cmd")
    .runs(Runs::Staged),
];

const SHELL_ARGS: &[ArgSpec] = &[
    arg("cmd", Str).required().also(&["_raw_params"]),
    arg("creates", Path),
    arg("removes", Path),
    arg("chdir", Path),
    arg("stdin", Str),
    arg("stdin_add_newline", Bool).or("true"),
    arg("strip_empty_ends", Bool).or("true"),
    arg("executable", Path),
];

const FILES: &[ModuleSpec] = &[
    ModuleSpec::new(
        "copy",
        Builtin,
        &[
            arg("src", Path),
            // Raw: a mapping or list becomes JSON text, as Ansible's copy does.
            arg("content", Raw),
            arg("dest", Path).required(),
            arg("remote_src", Bool).or("false"),
            arg("force", Bool).or("true"),
            arg("follow", Bool).or("false"),
            arg("directory_mode", Mode),
            arg("decrypt", Bool).or("true"),
            arg("checksum", Str),
            BACKUP,
            VALIDATE,
            MODE,
            OWNER,
            GROUP,
            // Of the engine: the content is the frame's body; `_original_basename` is the
            // name a destination that is a directory completes with.
            arg("_content_in_body", Bool).or("false"),
            arg("_original_basename", Str),
        ],
    )
    .rules(&[
        Exclusive(&["src", "content"]),
        OneOf(&["src", "content", "_content_in_body"]),
    ]),
    ModuleSpec::new(
        "template",
        Builtin,
        &[
            arg("src", Path).required(),
            arg("dest", Path).required(),
            arg("force", Bool).or("true"),
            arg("follow", Bool).or("false"),
            arg("newline_sequence", Str)
                .or("\n")
                .one_of(&["\n", "\r", "\r\n"]),
            arg("block_start_string", Str).or("{%"),
            arg("block_end_string", Str).or("%}"),
            arg("variable_start_string", Str).or("{{"),
            arg("variable_end_string", Str).or("}}"),
            arg("comment_start_string", Str).or("{#"),
            arg("comment_end_string", Str).or("#}"),
            arg("trim_blocks", Bool).or("true"),
            arg("lstrip_blocks", Bool).or("false"),
            arg("output_encoding", Str)
                .or("utf-8")
                .one_of(&["utf-8", "UTF-8"]),
            BACKUP,
            VALIDATE,
            MODE,
            OWNER,
            GROUP,
        ],
    )
    .runs(Runs::Staged),
    ModuleSpec::new(
        "fetch",
        Builtin,
        &[
            arg("src", Path).required(),
            arg("dest", Path).required(),
            arg("flat", Bool).or("false"),
            arg("fail_on_missing", Bool).or("true"),
            arg("validate_checksum", Bool).or("true"),
        ],
    )
    .runs(Runs::Staged),
    ModuleSpec::new(
        "file",
        Builtin,
        &[
            arg("path", Path).required().also(&["dest", "name"]),
            arg("state", Str).one_of(&["absent", "directory", "file", "hard", "link", "touch"]),
            arg("src", Path),
            arg("recurse", Bool).or("false"),
            arg("force", Bool).or("false"),
            arg("follow", Bool).or("true"),
            arg("access_time", Str),
            arg("modification_time", Str),
            MODE,
            OWNER,
            GROUP,
            arg("_original_basename", Str),
        ],
    )
    .rules(&[Needs("state", "link", "src"), Needs("state", "hard", "src")]),
    ModuleSpec::new(
        "lineinfile",
        Builtin,
        &[
            EDITED_PATH,
            arg("state", Str)
                .or("present")
                .one_of(&["absent", "present"]),
            arg("regexp", Str).also(&["regex"]),
            arg("search_string", Str),
            arg("line", Str).also(&["value"]),
            arg("insertafter", Str),
            arg("insertbefore", Str),
            arg("backrefs", Bool).or("false"),
            arg("create", Bool).or("false"),
            arg("firstmatch", Bool).or("false"),
            BACKUP,
            VALIDATE,
            MODE,
            OWNER,
            GROUP,
        ],
    )
    .rules(&[
        Needs("state", "present", "line"),
        Exclusive(&["insertbefore", "insertafter"]),
        Exclusive(&["regexp", "search_string"]),
    ]),
    ModuleSpec::new(
        "blockinfile",
        Builtin,
        &[
            EDITED_PATH,
            arg("state", Str)
                .or("present")
                .one_of(&["absent", "present"]),
            arg("block", Str).or("").also(&["content"]),
            arg("marker", Str).or("# {mark} ANSIBLE MANAGED BLOCK"),
            arg("marker_begin", Str).or("BEGIN"),
            arg("marker_end", Str).or("END"),
            arg("insertafter", Str),
            arg("insertbefore", Str),
            arg("create", Bool).or("false"),
            arg("append_newline", Bool).or("false"),
            arg("prepend_newline", Bool).or("false"),
            BACKUP,
            VALIDATE,
            MODE,
            OWNER,
            GROUP,
        ],
    )
    .rules(&[Exclusive(&["insertbefore", "insertafter"])]),
    ModuleSpec::new(
        "replace",
        Builtin,
        &[
            EDITED_PATH,
            arg("regexp", Str).required(),
            arg("replace", Str).or(""),
            arg("after", Str),
            arg("before", Str),
            arg("encoding", Str).or("utf-8").one_of(&["utf-8"]),
            BACKUP,
            VALIDATE,
            MODE,
            OWNER,
            GROUP,
        ],
    ),
    ModuleSpec::new(
        "stat",
        Builtin,
        &[
            arg("path", Path).required().also(&["dest", "name"]),
            arg("follow", Bool).or("false"),
            arg("get_checksum", Bool).or("true"),
            arg("get_mime", Bool)
                .or("true")
                .also(&["mime", "mime_type", "mime-type"]),
            arg("get_attributes", Bool)
                .or("true")
                .also(&["attr", "attributes"]),
            arg("checksum_algorithm", Str)
                .or("sha1")
                .also(&["checksum", "checksum_algo"])
                .one_of(&["sha1", "sha256"]),
        ],
    ),
    ModuleSpec::new(
        "slurp",
        Builtin,
        &[arg("src", Path).required().also(&["path"])],
    ),
    ModuleSpec::new(
        "find",
        Builtin,
        &[
            arg("paths", List).required().also(&["name", "path"]),
            arg("patterns", List).also(&["pattern"]),
            arg("excludes", List).also(&["exclude"]),
            arg("contains", Str),
            arg("read_whole_file", Bool).or("false"),
            arg("file_type", Str)
                .or("file")
                .one_of(&["any", "directory", "file", "link"]),
            arg("age", Str),
            arg("age_stamp", Str)
                .or("mtime")
                .one_of(&["atime", "ctime", "mtime"]),
            arg("size", Str),
            arg("recurse", Bool).or("false"),
            arg("hidden", Bool).or("false"),
            arg("follow", Bool).or("false"),
            arg("get_checksum", Bool).or("false"),
            arg("use_regex", Bool).or("false"),
            arg("depth", Int),
            arg("limit", Int),
        ],
    ),
    ModuleSpec::new(
        "tempfile",
        Builtin,
        &[
            arg("state", Str).or("file").one_of(&["directory", "file"]),
            arg("path", Path),
            arg("prefix", Str).or("ansible."),
            arg("suffix", Str).or(""),
        ],
    )
    .no_check(),
];

const SERVICE_STATES: &[&str] = &["started", "stopped", "restarted", "reloaded"];

const SYSTEM: &[ModuleSpec] = &[
    ModuleSpec::new(
        "service",
        Builtin,
        &[
            arg("name", Str).required(),
            arg("state", Str).one_of(SERVICE_STATES),
            arg("enabled", Bool),
            arg("use", Str).or("auto").one_of(&["auto", "systemd"]),
            // For systems without systemd; accepted and without effect, as in Ansible.
            arg("pattern", Str),
            arg("runlevel", Str).or("default"),
            arg("sleep", Int),
            arg("arguments", Str).or("").also(&["args"]),
        ],
    )
    .rules(&[OneOf(&["state", "enabled"])]),
    ModuleSpec::new(
        "systemd",
        Builtin,
        &[
            arg("name", Str).also(&["service", "unit"]),
            arg("state", Str).one_of(SERVICE_STATES),
            arg("enabled", Bool),
            arg("masked", Bool),
            arg("force", Bool).or("false"),
            arg("daemon_reload", Bool)
                .or("false")
                .also(&["daemon-reload"]),
            arg("daemon_reexec", Bool)
                .or("false")
                .also(&["daemon-reexec"]),
            arg("no_block", Bool).or("false"),
            arg("scope", Str).or("system").one_of(&["system"]),
        ],
    )
    .aliases(&["systemd_service"])
    .rules(&[
        OneOf(&[
            "state",
            "enabled",
            "masked",
            "daemon_reload",
            "daemon_reexec",
        ]),
        Requires("state", "name"),
        Requires("enabled", "name"),
        Requires("masked", "name"),
    ]),
    ModuleSpec::new(
        "package",
        Builtin,
        &[
            arg("name", List).required(),
            arg("state", Str).or("present").one_of(&[
                "present",
                "installed",
                "absent",
                "removed",
                "latest",
            ]),
            arg("use", Str).or("auto").one_of(&["auto", "apt"]),
        ],
    ),
    ModuleSpec::new(
        "apt",
        Builtin,
        &[
            arg("name", List).also(&["package", "pkg"]),
            arg("state", Str)
                .or("present")
                .one_of(&["present", "absent", "latest"]),
            arg("update_cache", Bool).also(&["update-cache"]),
            arg("cache_valid_time", Int).or("0"),
            arg("purge", Bool).or("false"),
            arg("autoremove", Bool).or("false"),
            arg("install_recommends", Bool).also(&["install-recommends"]),
            arg("force", Bool).or("false"),
            arg("lock_timeout", Int).or("60"),
        ],
    )
    .rules(&[OneOf(&["name", "update_cache"])]),
    ModuleSpec::new(
        "user",
        Builtin,
        &[
            arg("name", Str).required().also(&["user"]),
            arg("state", Str)
                .or("present")
                .one_of(&["absent", "present"]),
            arg("uid", Int),
            arg("group", Str),
            arg("groups", List),
            arg("append", Bool).or("false"),
            arg("comment", Str),
            arg("home", Path),
            arg("shell", Path),
            arg("password", Str),
            arg("update_password", Str)
                .or("always")
                .one_of(&["always", "on_create"]),
            arg("password_lock", Bool),
            arg("create_home", Bool).or("true").also(&["createhome"]),
            arg("move_home", Bool).or("false"),
            arg("system", Bool).or("false"),
            arg("force", Bool).or("false"),
            arg("remove", Bool).or("false"),
            arg("non_unique", Bool).or("false"),
        ],
    ),
    ModuleSpec::new(
        "group",
        Builtin,
        &[
            arg("name", Str).required(),
            arg("state", Str)
                .or("present")
                .one_of(&["absent", "present"]),
            arg("gid", Int),
            arg("system", Bool).or("false"),
            arg("force", Bool).or("false"),
            arg("non_unique", Bool).or("false"),
        ],
    ),
    ModuleSpec::new(
        "hostname",
        Builtin,
        &[
            arg("name", Str).required(),
            arg("use", Str).one_of(&["systemd", "debian"]),
        ],
    ),
    ModuleSpec::new(
        "getent",
        Builtin,
        &[
            arg("database", Str).required(),
            arg("key", Str).or(""),
            arg("service", Str),
            arg("split", Str),
            arg("fail_key", Bool).or("true"),
        ],
    ),
    ModuleSpec::new(
        "filesystem",
        General,
        &[
            arg("dev", Path).required().also(&["device"]),
            arg("fstype", Str).also(&["type"]),
            arg("force", Bool).or("false"),
            // As mkfs takes them.
            arg("opts", Str),
            arg("state", Str).or("present").one_of(PRESENCE),
        ],
    )
    .rules(&[Needs("state", "present", "fstype")]),
    ModuleSpec::new(
        "modprobe",
        General,
        &[
            arg("name", Str).required(),
            arg("state", Str)
                .or("present")
                .one_of(&["absent", "present"]),
            arg("params", Str).or(""),
            arg("persistent", Str)
                .or("disabled")
                .one_of(&["disabled", "present", "absent"]),
        ],
    ),
    ModuleSpec::new(
        "sysctl",
        Posix,
        &[
            arg("name", Str).required().also(&["key"]),
            arg("value", Str).also(&["val"]),
            arg("state", Str)
                .or("present")
                .one_of(&["present", "absent"]),
            arg("sysctl_set", Bool).or("false"),
            arg("sysctl_file", Path).or("/etc/sysctl.conf"),
            arg("reload", Bool).or("true"),
            arg("ignoreerrors", Bool).or("false"),
        ],
    )
    .rules(&[Needs("state", "present", "value")]),
    ModuleSpec::new(
        "mount",
        Posix,
        &[
            arg("path", Path).required().also(&["name"]),
            arg("state", Str).required().one_of(&[
                "mounted",
                "present",
                "absent",
                "unmounted",
                "remounted",
                "ephemeral",
            ]),
            arg("src", Str),
            arg("fstype", Str),
            arg("opts", Str),
            arg("dump", Str).or("0"),
            arg("passno", Str).or("0"),
            arg("fstab", Path),
            arg("boot", Bool).or("true"),
            BACKUP,
        ],
    )
    .rules(&[
        Needs("state", "mounted", "src"),
        Needs("state", "mounted", "fstype"),
        Needs("state", "present", "src"),
        Needs("state", "present", "fstype"),
        Needs("state", "ephemeral", "src"),
        Needs("state", "ephemeral", "fstype"),
    ]),
];

const NETWORK: &[ModuleSpec] = &[
    ModuleSpec::new(
        "iptables",
        Builtin,
        &[
            arg("table", Str)
                .or("filter")
                .one_of(&["filter", "nat", "mangle", "raw", "security"]),
            arg("state", Str)
                .or("present")
                .one_of(&["absent", "present"]),
            arg("action", Str)
                .or("append")
                .one_of(&["append", "insert"]),
            arg("ip_version", Str).or("ipv4").one_of(&["ipv4", "ipv6"]),
            arg("rule_num", Str),
            arg("chain", Str),
            arg("chain_management", Bool).or("false"),
            arg("protocol", Str),
            arg("source", Str),
            arg("destination", Str),
            arg("match", List).or(""),
            arg("jump", Str),
            arg("goto", Str),
            arg("in_interface", Str),
            arg("out_interface", Str),
            arg("fragment", Str),
            arg("set_counters", Str),
            arg("source_port", Str),
            arg("destination_port", Str),
            arg("destination_ports", List).or(""),
            arg("to_ports", Str),
            arg("to_destination", Str),
            arg("to_source", Str),
            arg("tcp_flags", Dict),
            arg("gateway", Str),
            arg("set_dscp_mark", Str),
            arg("log_prefix", Str),
            arg("log_level", Str),
            arg("comment", Str),
            arg("ctstate", List).or(""),
            arg("src_range", Str),
            arg("dst_range", Str),
            arg("limit", Str),
            arg("limit_burst", Str),
            arg("uid_owner", Str),
            arg("gid_owner", Str),
            arg("reject_with", Str),
            arg("icmp_type", Str),
            arg("syn", Str)
                .or("ignore")
                .one_of(&["ignore", "match", "negate"]),
            arg("flush", Bool).or("false"),
            arg("policy", Str).one_of(&["ACCEPT", "DROP", "QUEUE", "RETURN"]),
            arg("wait", Str),
            arg("numeric", Bool).or("false"),
        ],
    )
    .rules(&[
        Exclusive(&["set_dscp_mark", "goto"]),
        Exclusive(&["flush", "policy"]),
        OneOf(&["chain", "flush"]),
        Needs("jump", "TEE", "gateway"),
        Needs("jump", "tee", "gateway"),
    ]),
    ModuleSpec::new(
        "wait_for",
        Builtin,
        &[
            arg("host", Str).or("127.0.0.1"),
            arg("port", Int),
            arg("path", Path),
            arg("state", Str)
                .or("started")
                .one_of(&["absent", "drained", "present", "started", "stopped"]),
            arg("timeout", Int).or("300"),
            arg("connect_timeout", Int).or("5"),
            arg("delay", Int).or("0"),
            arg("sleep", Int).or("1"),
            arg("search_regex", Str),
            arg("exclude_hosts", List),
            arg("active_connection_states", List)
                .or("ESTABLISHED,FIN_WAIT1,FIN_WAIT2,SYN_RECV,SYN_SENT,TIME_WAIT"),
            arg("msg", Str),
        ],
    )
    .rules(&[Exclusive(&["port", "path"])]),
    ModuleSpec::new(
        "uri",
        Builtin,
        &[
            arg("url", Str).required(),
            arg("method", Str).or("GET"),
            arg("body", Raw),
            arg("body_format", Str)
                .or("raw")
                .one_of(&["raw", "json", "form-urlencoded"]),
            arg("headers", Dict),
            arg("status_code", List).or("200"),
            arg("return_content", Bool).or("false"),
            arg("follow_redirects", Str)
                .or("safe")
                .one_of(&["all", "none", "safe", "urllib2", "no", "yes"]),
            arg("timeout", Int).or("30"),
            arg("dest", Path),
            arg("creates", Path),
            arg("removes", Path),
            arg("url_username", Str).also(&["user"]),
            arg("url_password", Str).also(&["password"]),
            arg("force_basic_auth", Bool).or("false"),
            arg("force", Bool).or("false"),
            arg("http_agent", Str).or("ansible-httpget"),
            MODE,
            OWNER,
            GROUP,
        ],
    )
    .no_check(),
    ModuleSpec::new(
        "get_url",
        Builtin,
        &[
            arg("url", Str).required(),
            arg("dest", Path).required(),
            arg("checksum", Str).or(""),
            arg("force", Bool).or("false"),
            arg("timeout", Int).or("10"),
            arg("headers", Dict),
            arg("url_username", Str).also(&["username"]),
            arg("url_password", Str).also(&["password"]),
            arg("force_basic_auth", Bool).or("false"),
            arg("http_agent", Str).or("ansible-httpget"),
            BACKUP,
            MODE,
            OWNER,
            GROUP,
        ],
    ),
];

const FACTS: &[ModuleSpec] = &[
    ModuleSpec::new("ping", Builtin, &[arg("data", Str).or("pong")]),
    ModuleSpec::new(
        "setup",
        Builtin,
        &[
            arg("gather_subset", List).or("all"),
            arg("gather_timeout", Int).or("10"),
            arg("filter", List).or(""),
            arg("fact_path", Path).or("/etc/ansible/facts.d"),
        ],
    )
    .aliases(&["gather_facts"]),
];

const fn controller(name: &'static str, args: &'static [ArgSpec]) -> ModuleSpec {
    ModuleSpec::new(name, Builtin, args).runs(Runs::Controller)
}

const INCLUDE_ARGS: &[ArgSpec] = &[
    arg("file", Str).required().also(&["_raw_params"]),
    arg("apply", Dict),
];

const CONTROLLER: &[ModuleSpec] = &[
    controller("set_fact", &[arg("cacheable", Bool).or("false")]).open(),
    controller(
        "assert",
        &[
            arg("that", RawList).required(),
            // Raw: Ansible takes one text or a list of them.
            arg("fail_msg", Raw).also(&["msg"]),
            arg("success_msg", Raw),
            arg("quiet", Bool).or("false"),
        ],
    ),
    controller(
        "debug",
        &[
            arg("msg", Raw),
            arg("var", Str),
            arg("verbosity", Int).or("0"),
        ],
    )
    .rules(&[Exclusive(&["msg", "var"])]),
    controller(
        "fail",
        &[arg("msg", Str).or("Failed as requested from task")],
    ),
    controller("include_tasks", INCLUDE_ARGS).free_form("file"),
    controller("import_tasks", INCLUDE_ARGS).free_form("file"),
    controller(
        "import_playbook",
        &[arg("file", Str).required().also(&["_raw_params"])],
    )
    .free_form("file"),
    controller(
        "include_vars",
        &[
            arg("file", Path).also(&["_raw_params"]),
            arg("dir", Path),
            arg("name", Str),
            arg("depth", Int).or("0"),
            arg("files_matching", Str),
            arg("ignore_files", List),
            arg("extensions", List).or("json,yaml,yml"),
            arg("ignore_unknown_extensions", Bool).or("false"),
        ],
    )
    .free_form("file")
    .rules(&[OneOf(&["file", "dir"]), Exclusive(&["file", "dir"])]),
    controller(
        "meta",
        &[arg("action", Str)
            .required()
            .also(&["_raw_params", "free_form"])
            .one_of(&[
                "flush_handlers",
                "noop",
                "end_play",
                "end_host",
                "end_batch",
                "clear_facts",
                "clear_host_errors",
                "refresh_inventory",
                "reset_connection",
            ])],
    )
    .free_form("action"),
    controller(
        "add_host",
        &[
            arg("name", Str).required().also(&["host", "hostname"]),
            arg("groups", List).also(&["group", "groupname"]),
        ],
    )
    .open(),
    controller(
        "group_by",
        &[arg("key", Str).required(), arg("parents", List).or("all")],
    ),
    controller(
        "pause",
        &[
            arg("seconds", Float),
            arg("minutes", Float),
            arg("prompt", Str),
            arg("echo", Bool).or("true"),
        ],
    )
    .rules(&[Exclusive(&["seconds", "minutes"])]),
];

const INTERFACE: ArgSpec = arg("interface", Str)
    .required()
    .also(&["dev", "device", "iface"]);
const PRESENCE: &[&str] = &["present", "absent"];

const LVS_PROTOCOL: ArgSpec = arg("protocol", Str)
    .or("tcp")
    .one_of(&["tcp", "udp", "sctp"]);
/// Whose packets a firewall mark stands for.
const LVS_FAMILY: ArgSpec = arg("family", Str).or("ipv4").one_of(&["ipv4", "ipv6"]);

const LAB: &[ModuleSpec] = &[
    ModuleSpec::new(
        "ip_address",
        Lab,
        &[
            INTERFACE,
            // With its prefix length: 10.0.0.1/24. Without one: /32 or /128.
            arg("address", Str).required(),
            arg("label", Str),
            arg("broadcast", Str),
            arg("scope", Str)
                .or("global")
                .one_of(&["global", "link", "host"]),
            arg("state", Str).or("present").one_of(PRESENCE),
        ],
    ),
    ModuleSpec::new(
        "ip_link",
        Lab,
        &[
            arg("name", Str).required().also(&["interface", "dev"]),
            arg("state", Str)
                .or("up")
                .one_of(&["up", "down", "present", "absent"]),
            // Needed to make an interface; an existing one must be of this type.
            arg("type", Str).one_of(&["dummy", "bridge", "ipip"]),
            arg("mtu", Int),
            arg("arp", Bool),
        ],
    ),
    ModuleSpec::new(
        "ip_tunnel",
        Lab,
        &[
            arg("name", Str).required(),
            arg("mode", Str).or("ipip").one_of(&["ipip"]),
            arg("local", Str).or("0.0.0.0"),
            arg("remote", Str).or("0.0.0.0"),
            arg("ttl", Int).or("0"),
            arg("state", Str)
                .or("up")
                .one_of(&["up", "down", "present", "absent"]),
        ],
    ),
    ModuleSpec::new(
        "lvs_service",
        Lab,
        &[
            // With its port: 10.0.0.1:80. Without one: every port, which needs `persistent`.
            arg("service", Str).also(&["address"]),
            LVS_PROTOCOL,
            arg("fwmark", Int),
            LVS_FAMILY,
            arg("scheduler", Str).or("wlc"),
            arg("scheduler_flags", List),
            // Seconds for which a client keeps its server.
            arg("persistent", Int),
            arg("netmask", Str),
            arg("engine", Str).also(&["pe"]),
            arg("one_packet", Bool).or("false").also(&["ops"]),
            // Each a mapping of lvs_server's arguments. Without the list servers are left
            // alone.
            arg("servers", RawList),
            arg("exclusive_servers", Bool).or("true"),
            // Many services at once; with `exclusive` there are no others.
            arg("services", RawList),
            arg("exclusive", Bool).or("false"),
            arg("state", Str).or("present").one_of(PRESENCE),
        ],
    )
    .rules(&[
        OneOf(&["service", "fwmark", "services"]),
        Exclusive(&["service", "fwmark", "services"]),
    ]),
    ModuleSpec::new(
        "lvs_server",
        Lab,
        &[
            arg("service", Str),
            LVS_PROTOCOL,
            arg("fwmark", Int),
            LVS_FAMILY,
            // With another port than the service's only for nat.
            arg("server", Str).required().also(&["address"]),
            arg("method", Str)
                .or("dr")
                .one_of(&["dr", "tun", "nat", "gatewaying", "ipip", "masquerading"])
                .also(&["forwarding"]),
            arg("weight", Int).or("1"),
            arg("upper_threshold", Int).or("0").also(&["u_threshold"]),
            arg("lower_threshold", Int).or("0").also(&["l_threshold"]),
            arg("tunnel_type", Str)
                .or("ipip")
                .one_of(&["ipip", "gue", "gre"]),
            arg("tunnel_port", Int),
            arg("tunnel_checksum", Str)
                .or("none")
                .one_of(&["none", "full", "remote"]),
            arg("state", Str).or("present").one_of(PRESENCE),
        ],
    )
    .rules(&[
        OneOf(&["service", "fwmark"]),
        Exclusive(&["service", "fwmark"]),
        Needs("tunnel_type", "gue", "tunnel_port"),
    ]),
    ModuleSpec::new(
        "replica",
        Lab,
        &[
            arg("name", Str).required().also(&["resource"]),
            // What the resource's file says; without `hosts` the file is left alone.
            arg("device", Path).or("/dev/drbd0"),
            arg("disk", Path),
            arg("meta_disk", Str).or("internal"),
            // Each node's name with its address and port, 10.0.23.2:7788; or a mapping of
            // address, device, disk and meta_disk where nodes differ.
            arg("hosts", Dict),
            arg("protocol", Str).one_of(&["A", "B", "C"]),
            // Options by name, as drbd.conf has them; true is yes and false is no.
            arg("net", Dict),
            arg("disk_options", Dict),
            arg("startup", Dict),
            arg("handlers", Dict),
            // NAME.res in /etc/drbd.d unless told.
            arg("path", Path),
            // configured: the file alone. up: metadata where there is none, disk and
            // connection. absent: down, and the file goes.
            arg("state", Str)
                .or("up")
                .one_of(&["configured", "up", "down", "absent"]),
            // New metadata although there is some: the data counts as unknown afterwards.
            arg("create_md", Str)
                .or("missing")
                .one_of(&["missing", "always", "never"]),
            arg("role", Str).one_of(&["primary", "secondary"]),
            // Makes a node primary although its data is not known to be good.
            arg("force", Bool).or("false"),
            arg("discard_my_data", Bool).or("false"),
            // connected; syncing: a first sync has begun or is over; synced: both disks
            // UpToDate.
            arg("wait_for", Str).one_of(&["connected", "syncing", "synced"]),
            arg("timeout", Float).or("120"),
            // agent: the agent answers to drbdadm's name on that host; native: whatever
            // drbdadm there is.
            arg("tools", Str).or("native").one_of(&["agent", "native"]),
        ],
    ),
    ModuleSpec::new(
        "http_check",
        Lab,
        &[
            arg("url", Str).required(),
            arg("count", Int).or("1"),
            arg("parallel", Int).or("1"),
            arg("timeout", Float).or("5"),
            arg("method", Str).or("GET"),
            arg("headers", Dict),
            // Each connection stays open until all requests are through, and so long more.
            arg("keep_open", Bool).or("false"),
            arg("hold_seconds", Float).or("0"),
            // What tells servers apart: the first match of this expression in a body, or
            // its first group; without it the body's first line.
            arg("identify", Str),
            // What must be seen: status, body (regex), distribution, servers (how many
            // different ones answered), refused, timeouts.
            arg("expect", Dict),
        ],
    ),
    ModuleSpec::new(
        "arp_check",
        Lab,
        &[
            INTERFACE,
            arg("address", Str).required(),
            arg("count", Int).or("2"),
            arg("timeout", Float).or("1"),
            // The one station that may answer; without it: exactly one, whichever.
            arg("expect", Str).also(&["mac"]),
            // How many stations may answer.
            arg("answers", Int),
        ],
    )
    .rules(&[Exclusive(&["expect", "answers"])]),
    ModuleSpec::new(
        "packet_check",
        Lab,
        &[
            INTERFACE,
            // What passes while it is watched: http_check's arguments but `expect`.
            arg("request", Dict),
            // Asks who has this address, before the requests.
            arg("arp", Str),
            // How long it watches where it makes nothing pass itself.
            arg("seconds", Float).or("5"),
            // Each host's name with its `addresses` and `macs`; without it the inventory's.
            arg("hosts", Dict),
            // What must be seen; see the module `task::packet_check`.
            arg("expect", Dict),
            // Of the engine: the name of the host that watches.
            arg("_own_name", Str),
        ],
    ),
    ModuleSpec::new(
        "heartbeat",
        Lab,
        &[
            // Whose daemon runs: the agent's, standing in for the package, or the package's.
            // Without it whichever is there.
            arg("software", Str).one_of(&["agent", "package"]),
            // Each file's text, or a template of this machine that becomes it. What is not
            // given stays as it is.
            arg("ha_cf", Str),
            arg("ha_cf_template", Path),
            arg("authkeys", Str),
            arg("authkeys_template", Path),
            arg("haresources", Str),
            arg("haresources_template", Path),
            arg("state", Str).or("present").one_of(&[
                "present",
                "started",
                "restarted",
                "stopped",
                "absent",
            ]),
            // What must be seen: nodes (name: status), resources, addresses, not_addresses;
            // steady and timeout, in seconds.
            arg("wait_for", Dict),
        ],
    )
    .runs(Runs::Staged)
    .rules(&[
        Exclusive(&["ha_cf", "ha_cf_template"]),
        Exclusive(&["authkeys", "authkeys_template"]),
        Exclusive(&["haresources", "haresources_template"]),
    ]),
    ModuleSpec::new(
        "failover_watch",
        Lab,
        &[
            arg("state", Str)
                .required()
                .one_of(&["started", "awaited", "stopped"]),
            // The interface on which all of the lab's packets pass.
            arg("interface", Str).or("br0"),
            // The service: its address, its page, and what in the page names the server.
            arg("address", Str),
            arg("url", Str),
            arg("identify", Str),
            // Each node's own address.
            arg("nodes", Dict),
            arg("port", Int).or("694"),
            // For `awaited`: who must answer, and how long that may take.
            arg("answered_by", Str),
            arg("timeout", Float).or("120"),
            // For `stopped`: what is told of. Whose heartbeats ended, who took over, its
            // journal (`journalctl -o short-unix`), and the timers that set the floor.
            arg("lost", Str),
            arg("survivor", Str),
            arg("journal", Str),
            arg("floor", Float),
            arg("floor_of", Str),
        ],
    )
    .rules(&[
        Needs("state", "started", "address"),
        Needs("state", "started", "url"),
        Needs("state", "started", "nodes"),
        Needs("state", "awaited", "answered_by"),
        Needs("state", "stopped", "lost"),
        Needs("state", "stopped", "survivor"),
    ])
    .no_check(),
    ModuleSpec::new(
        "vm",
        Lab,
        &[
            arg("name", Str).required(),
            arg("state", Str).required().one_of(&[
                "running",
                "paused",
                "stopped",
                "killed",
                "restarted",
            ]),
        ],
    )
    .runs(Runs::Lab),
    ModuleSpec::new(
        "snapshot",
        Lab,
        &[
            arg("name", Str).required(),
            arg("state", Str).or("loaded").one_of(&["loaded", "saved"]),
        ],
    )
    .runs(Runs::Lab)
    .no_check(),
    ModuleSpec::new(
        "fault",
        Lab,
        &[
            arg("kind", Str)
                .required()
                .one_of(&["link", "loss", "pause", "resume", "kill"]),
            arg("vm", Str).required(),
            arg("nic", Str),
            arg("state", Str).one_of(&["up", "down"]),
            arg("percent", Float),
        ],
    )
    .runs(Runs::Lab)
    .rules(&[
        Needs("kind", "link", "nic"),
        Needs("kind", "link", "state"),
        Needs("kind", "loss", "nic"),
        Needs("kind", "loss", "percent"),
    ]),
];
