package contexts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFileIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "muster", "config.yaml")
	file, err := Load(path)
	if err != nil || len(file.Names()) != 0 {
		t.Fatalf("a file that is not there: %v, %v", file, err)
	}
	file.Set("b", Context{Server: "https://b", Key: "mst_b"})
	file.Set("a", Context{Server: "https://a", Key: "mst_a", Org: "org_1", OrgName: "A: the \"first\"", Person: "Ada"})
	if err := file.Save(path); err != nil {
		t.Fatal(err)
	}
	read, err := Load(path)
	if err != nil || read.Current != "a" || strings.Join(read.Names(), " ") != "a b" || read.Contexts["a"] != file.Contexts["a"] {
		t.Errorf("%+v, %v", read, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != fileMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	read.Remove("a")
	if read.Current != "" || len(read.Names()) != 1 {
		t.Errorf("after removal: %+v", read)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v is left in the folder, %v", left, err)
	}
}

func TestAFileThatOthersCouldReadIsReplacedByOneTheyCannot(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("current: x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := Load(path)
	if err != nil || file.Current != "x" {
		t.Fatalf("%+v, %v", file, err)
	}
	if err := file.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != fileMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestTheFileIsBelowTheConfigurationFolder(t *testing.T) {
	t.Parallel()
	for want, env := range map[string]map[string]string{
		"/x/muster/config.yaml": {"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/h/.config/muster/config.yaml": {"HOME": "/h"}, "": {},
	} {
		if got, err := Path(func(name string) string { return env[name] }); got != want || (err != nil) != (want == "") {
			t.Errorf("%v gives %q, %v", env, got, err)
		}
	}
}
