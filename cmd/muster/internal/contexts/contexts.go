// Package contexts keeps what `muster login` learned: for each place to work in, the server, the organisation and an API key.
//
// The file holds secrets: it is written with mode 0600, through a new file that replaces the old one, so that a crash leaves
// either. Two processes that write at once: the later one wins. Errors name the file and say what to do.
package contexts

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"
)

const (
	fileMode   = 0o600
	folderMode = 0o700
	maxBytes   = 1 << 20
)

// Context is one place to work in.
type Context struct {
	Server  string `yaml:"server"`
	Org     string `yaml:"org,omitempty"`
	OrgName string `yaml:"org_name,omitempty"`
	Person  string `yaml:"person,omitempty"`
	Key     string `yaml:"key"`
}

// File is the configuration file.
type File struct {
	Current  string             `yaml:"current,omitempty"`
	Contexts map[string]Context `yaml:"contexts,omitempty"`
}

// Path is where the file is: below XDG_CONFIG_HOME, or .config in the home folder.
func Path(getenv func(string) string) (string, error) {
	folder := getenv("XDG_CONFIG_HOME")
	if folder == "" {
		home := getenv("HOME")
		if home == "" {
			return "", errors.New("neither XDG_CONFIG_HOME nor HOME is set: there is no place for the configuration file")
		}
		folder = filepath.Join(home, ".config")
	}
	return filepath.Join(folder, "muster", "config.yaml"), nil
}

// Load reads the file at path; one that does not exist is empty.
func Load(path string) (File, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, nil
	}
	if err != nil {
		return File{}, fmt.Errorf("read the configuration: %w", err)
	}
	if len(content) > maxBytes {
		return File{}, fmt.Errorf("%s is larger than a configuration file can be: move it away and run `muster login`", path)
	}
	var file File
	if err := yaml.Unmarshal(content, &file); err != nil {
		return File{}, fmt.Errorf("%s is not a configuration file of muster (%w): mend it, or move it away and run `muster login`", path, err)
	}
	return file, nil
}

// Save writes the file.
func (f File) Save(path string) error {
	content, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode the configuration: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), folderMode); err != nil {
		return fmt.Errorf("make the configuration's folder: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".config-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }()
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Chmod(fileMode), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// Names are the contexts' names in order.
func (f File) Names() []string { return slices.Sorted(maps.Keys(f.Contexts)) }

// Set adds or replaces a context and makes it the current one.
func (f *File) Set(name string, c Context) {
	if f.Contexts == nil {
		f.Contexts = make(map[string]Context)
	}
	f.Contexts[name] = c
	f.Current = name
}

// Remove forgets a context.
func (f *File) Remove(name string) {
	delete(f.Contexts, name)
	if f.Current == name {
		f.Current = ""
	}
}
