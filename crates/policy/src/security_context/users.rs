//! The image's user database: `/etc/passwd` and `/etc/group` as an image has them, read without a C library, because NSS would
//! load the image's code (CVE-2019-14271).

use super::UserDatabase;

/// The largest user or group id: Kubernetes' own bound, and half of the kernel's (CVE-2024-40635: an id past 2^32 wrapped
/// to root).
pub const MAX_ID: i64 = i32::MAX as i64;

/// One line of passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

/// One line of group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

impl UserDatabase<'_> {
    /// Lines that cannot be read are skipped, as libc does.
    pub fn users(&self) -> impl Iterator<Item = User> {
        lines(self.passwd).filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or_default().to_owned();
            Some(User { name, uid, gid, home })
        })
    }

    pub fn groups(&self) -> impl Iterator<Item = Group> {
        lines(self.group).filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default();
            let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
            Some(Group { name, gid, members })
        })
    }

    pub fn user_by_uid(&self, uid: u32) -> Option<User> {
        self.users().find(|user| user.uid == uid)
    }

    pub fn user_by_name(&self, name: &str) -> Option<User> {
        self.users().find(|user| user.name == name)
    }

    pub fn group_by_name(&self, name: &str) -> Option<Group> {
        self.groups().find(|group| group.name == name)
    }

    /// The groups that list `user` as a member. A group of the user's own name is its primary one by custom, and is left
    /// out, as containerd does.
    pub fn groups_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.groups()
            .filter(move |group| group.name != user && group.members.iter().any(|member| member == user))
            .map(|group| group.gid)
    }
}

fn lines(file: Option<&[u8]>) -> impl Iterator<Item = &str> {
    file.unwrap_or_default()
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `USER` of an image: `user`, `uid`, `user:group`, `uid:gid` and mixtures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUser<'a> {
    /// Empty: not set, which is root.
    pub user: &'a str,
    pub group: Option<&'a str>,
}

impl<'a> ImageUser<'a> {
    pub fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((user, group)) => Self { user, group: Some(group).filter(|g| !g.is_empty()) },
            None => Self { user: text, group: None },
        }
    }

    /// The uid, if it is written as a number; `Some(Err)`: a number that is no id.
    pub fn uid(&self) -> Option<Result<u32, String>> {
        if self.user.is_empty() {
            return Some(Ok(0));
        }
        number(self.user)
    }
}

/// An id written as a number; `None`: it is a name.
pub fn number(text: &str) -> Option<Result<u32, String>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(match text.parse::<i64>() {
        Ok(id) if (0..=MAX_ID).contains(&id) => Ok(id as u32),
        _ => Err(format!("uids and gids must be in range 0-{MAX_ID}: {text}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nnginx:x:101:102:nginx:/var/cache/nginx:/sbin/nologin\nx:x:notanumber:1::/:\n\xff:x:5:5::/:\nlast:x:7:8";
    const GROUP: &[u8] = b"root:x:0:\nwww:x:33:nginx,other\nnginx:x:102:nginx\nempty:x:44\n";

    #[test]
    fn users_and_groups_are_found_and_bad_lines_skipped() {
        let users = UserDatabase { passwd: Some(PASSWD), group: Some(GROUP) };
        assert_eq!(users.users().map(|u| u.name).collect::<Vec<_>>(), ["root", "nginx", "last"]);
        assert_eq!(users.user_by_name("nginx").unwrap().uid, 101);
        assert_eq!(users.user_by_uid(101).unwrap().home, "/var/cache/nginx");
        assert_eq!(users.user_by_uid(7).unwrap().home, "");
        assert_eq!(users.groups_of("nginx").collect::<Vec<_>>(), [33]);
        assert_eq!(users.group_by_name("empty").unwrap().gid, 44);
        assert_eq!(UserDatabase::default().users().count(), 0);
    }

    #[test]
    fn the_users_of_images_are_read() {
        assert_eq!(ImageUser::parse("a:b"), ImageUser { user: "a", group: Some("b") });
        assert_eq!(ImageUser::parse("5:"), ImageUser { user: "5", group: None });
        assert_eq!(ImageUser::parse("").uid(), Some(Ok(0)));
        assert_eq!(ImageUser::parse("nginx").uid(), None);
        assert_eq!(ImageUser::parse("2147483647").uid(), Some(Ok(2_147_483_647)));
        for wrapping in ["2147483648", "4294967296", "-1", "99999999999999999999"] {
            assert!(ImageUser::parse(wrapping).uid().unwrap().is_err(), "{wrapping}");
        }
    }
}
