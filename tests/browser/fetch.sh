#!/bin/sh
# Says where there is a headless Chromium for the test of the status page, and fetches one if there is none.
# Prints three lines: the program, directories of libraries that it needs, a configuration of fonts; the last
# two are empty where the system has what it needs.
#
# Looked for: what CHROMIUM names, then the usual names in PATH. Else, on Debian and its kin, the package
# chromium-headless-shell with what it needs, and a font, is fetched by apt-get as whoever runs this, and unpacked below
# target/browser: nothing is installed, and nothing outside target/ is touched.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in
    /*) ;;
    *) target=$PWD/$target ;;
esac
base=$target/browser

fail() {
    echo "browser for tests: $1" >&2
    exit 1
}

if [ -n "${CHROMIUM:-}" ]; then
    command -v "$CHROMIUM" || fail "CHROMIUM=$CHROMIUM is no program"
    printf '\n\n'
    exit 0
fi
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    if command -v "$name"; then
        printf '\n\n'
        exit 0
    fi
done

found() {
    find "$base/root" -type f \( -name chromium-headless-shell -o -name headless_shell \) -path '*/lib/*' 2>/dev/null | head -n 1
}
libraries() {
    find "$base/root/usr/lib" "$base/root/lib" -name '*.so*' 2>/dev/null | sed 's:/[^/]*$::' | sort -u | paste -s -d : -
}
if [ -e "$base/.complete" ]; then
    found
    libraries
    echo "$base/fonts.conf"
    exit 0
fi

install='install one (Debian: apt-get install chromium-headless-shell; Fedora: dnf install chromium-headless), or name one by CHROMIUM'
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "there is no Chromium; $install"
work=$target/.browser.$$
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
echo "browser for tests: fetching chromium-headless-shell (some 100 MB, once)" >&2
apt() {
    apt-get -q -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o Debug::NoLocking=1 \
        -o APT::Sandbox::User="$(id -un)" "$@" >>"$work/log" 2>&1
}
if ! apt update || ! apt install --yes --download-only --no-install-recommends chromium-headless-shell fonts-dejavu-core; then
    tail -n 5 "$work/log" >&2
    fail "apt-get could not fetch it, see above; $install"
fi
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$work/root" || fail "$package can't be unpacked"
done
rm -rf "$work/cache" "$work/lists"
cat >"$work/fonts.conf" <<TEXT
<?xml version="1.0"?>
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir>$base/root/usr/share/fonts</dir>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <cachedir>$base/fonts</cachedir>
</fontconfig>
TEXT
: >"$work/.complete"
# Two runs at the same time do no harm: the first rename wins. What is not complete is from nobody.
[ -e "$base/.complete" ] || rm -rf "$base"
mv -T "$work" "$base" 2>/dev/null || [ -e "$base/.complete" ] || fail "$base is in the way; remove it"
[ -n "$(found)" ] || fail "the package holds no headless_shell; $install"
found
libraries
echo "$base/fonts.conf"
