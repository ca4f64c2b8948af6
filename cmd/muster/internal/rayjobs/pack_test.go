package rayjobs

import (
	"archive/zip"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// write makes a folder of files; names that end with / are folders.
func write(t interface {
	Helper()
	Fatal(...any)
}, root string, files map[string]string,
) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func namesIn(t interface {
	Helper()
	Fatal(...any)
}, p *Package,
) []string {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(p.Zip), int64(len(p.Zip)))
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(archive.File))
	for _, file := range archive.File {
		names = append(names, file.Name)
	}
	slices.Sort(names)
	return names
}

func TestEqualFoldersAreEqualPackages(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	files := map[string]string{"job.py": "print(1)", "lib/a.py": "a"}
	write(t, one, files)
	write(t, two, files)
	first, err := Pack(one, nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Pack(two, nil)
	if err != nil {
		t.Fatal(err)
	}
	if first.Name != second.Name || !strings.HasPrefix(first.URI(), "gcs://_ray_pkg_") || !strings.HasSuffix(first.Name, ".zip") {
		t.Errorf("%s and %s", first.URI(), second.URI())
	}
	write(t, two, map[string]string{"lib/a.py": "b"})
	if changed, err := Pack(two, nil); err != nil || changed.Name == first.Name {
		t.Errorf("other content is %v, %v", changed, err)
	}
}

func TestIgnoredFilesStayOut(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{
		".git/config": "", ".gitignore": "*.log\n!keep.log\ndata/\n# a comment\n", ".rayignore": "secret.txt\n", "job.py": "", "a.log": "", "keep.log": "",
		"data/x": "", "lib/data/y": "", "lib/secret.txt": "", "lib/.gitignore": "local\n", "lib/local": "", "local": "", "notes.md": "",
	})
	p, err := Pack(root, []string{"*.md"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(namesIn(t, p), " "); got != ".gitignore .rayignore job.py keep.log lib/.gitignore local" {
		t.Errorf("the package holds %s", got)
	}
}

// TestPatternsMeanWhatGitSaysTheyMean compares with git itself, on random files and patterns.
func TestPatternsMeanWhatGitSaysTheyMean(t *testing.T) {
	t.Parallel()
	name := rapid.SampledFrom([]string{"a", "b", "ab", "a.log", "b.log", "data", "a/b", "a/data/b", "data/a.log", "data/b/a", "b/a.log", "b/b/b"})
	line := rapid.SampledFrom([]string{
		"a", "*.log", "/a", "data/", "!a.log", "!data", "a/b", "**/b", "a/**", "**/data/*", "?", "[ab]", "[!a]", "/data/b", "!/b", "b/", "*", "!*/", "# a", "",
	})
	rapid.Check(t, func(r *rapid.T) {
		root := t.TempDir()
		files := map[string]string{}
		for _, n := range rapid.SliceOfNDistinct(name, 1, 8, rapid.ID).Draw(r, "files") {
			isPart := slices.ContainsFunc(keys(files), func(other string) bool { return strings.HasPrefix(other, n+"/") || strings.HasPrefix(n, other+"/") })
			if !isPart {
				files[n] = ""
			}
		}
		files[".gitignore"] = strings.Join(rapid.SliceOfN(line, 0, 5).Draw(r, "patterns"), "\n")
		if folder := rapid.SampledFrom([]string{"", "a", "data", "b"}).Draw(r, "second"); folder != "" && files[folder] == "" && !has(files, folder) {
			files[folder+"/.gitignore"] = strings.Join(rapid.SliceOfN(line, 0, 3).Draw(r, "second patterns"), "\n")
		}
		write(r, root, files)
		p, err := Pack(root, nil)
		if err != nil {
			r.Fatal(err)
		}
		if got, want := namesIn(r, p), gitNames(t, root); !slices.Equal(got, want) {
			r.Fatalf("packed %v, git says %v", got, want)
		}
	})
}

func keys(files map[string]string) []string {
	all := make([]string, 0, len(files))
	for name := range files {
		all = append(all, name)
	}
	return all
}

func has(files map[string]string, name string) bool {
	_, found := files[name]
	return found
}

func gitNames(t *testing.T, root string) []string {
	t.Helper()
	git := func(arguments ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", root}, arguments...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v", arguments, err)
		}
		return string(out)
	}
	git("init", "-q")
	names := strings.Fields(git("ls-files", "--others", "--exclude-per-directory=.gitignore"))
	slices.Sort(names)
	return names
}

func TestLinksToFilesAreFollowedAndOthersReported(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{"lib/a.py": "a"})
	for name, target := range map[string]string{"file": "lib/a.py", "folder": "lib", "loop": ".", "nowhere": "gone"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Pack(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(namesIn(t, p), " "); got != "file lib/a.py" || strings.Join(p.Skipped, " ") != "folder loop nowhere" {
		t.Errorf("the package holds %s, %v were skipped", got, p.Skipped)
	}
}

func TestAFolderThatIsTooLargeNamesItsLargestFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{"job.py": "print(1)", "data/weights": "", "data/small": "x"})
	if err := os.Truncate(filepath.Join(root, "data/weights"), maxFileBytes+1); err != nil { // sparse: it takes no space
		t.Fatal(err)
	}
	_, err := Pack(root, nil)
	if err == nil || !strings.Contains(err.Error(), "100 MiB") || !strings.Contains(err.Error(), "1024.0 MiB  data/weights") {
		t.Errorf("%v", err)
	}
	if p, err := Pack(root, []string{"data/"}); err != nil || p.Files != 1 {
		t.Errorf("without the data: %v, %v", p, err)
	}
	if _, err := Pack(filepath.Join(root, "job.py"), nil); err == nil || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("%v", err)
	}
}
