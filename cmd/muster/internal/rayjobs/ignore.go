package rayjobs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// pattern is a line of an ignore file.
type pattern struct {
	matches     *regexp.Regexp
	folder      string // that the file was in, relative to the root; "" for the root
	again       bool   // "!": take back
	foldersOnly bool
}

// ignores decides what stays out, as git does: the last pattern that matches wins, and deeper files come later.
type ignores []pattern

func (all ignores) excludes(name string, isFolder bool) bool {
	excluded := false
	for _, p := range all {
		below := name
		if p.folder != "" {
			rest, inside := strings.CutPrefix(name, p.folder+"/")
			if !inside {
				continue
			}
			below = rest
		}
		if (!p.foldersOnly || isFolder) && p.matches.MatchString(below) {
			excluded = !p.again
		}
	}
	return excluded
}

// with returns the ignores that hold in a folder: those above and the folder's own files.
func (all ignores) with(root, folder string) (ignores, error) {
	extended := all
	for _, file := range []string{".gitignore", ".rayignore"} {
		content, err := os.ReadFile(filepath.Join(root, folder, file))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		extended = append(extended[:len(extended):len(extended)], parseIgnores(strings.Split(string(content), "\n"), folder)...)
	}
	return extended, nil
}

func parseIgnores(lines []string, folder string) ignores {
	var parsed ignores
	for _, line := range lines {
		line = strings.TrimRight(line, " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		p := pattern{folder: folder}
		line, p.again = strings.CutPrefix(line, "!")
		line = strings.TrimPrefix(line, `\`)
		line, p.foldersOnly = strings.CutSuffix(line, "/")
		anchored := strings.Contains(line, "/")
		expression := glob(strings.TrimPrefix(line, "/"))
		if !anchored {
			expression = "(?:.*/)?" + expression
		}
		compiled, err := regexp.Compile("^" + expression + "$")
		if err != nil {
			continue // a pattern that git could not use either
		}
		p.matches = compiled
		parsed = append(parsed, p)
	}
	return parsed
}

// glob turns a pattern's wildcards into a regular expression.
func glob(text string) string {
	var expression strings.Builder
	for i := 0; i < len(text); i++ {
		switch rest := text[i:]; {
		case strings.HasPrefix(rest, "**/"):
			expression.WriteString("(?:.*/)?")
			i += 2
		case strings.HasPrefix(rest, "**"):
			expression.WriteString(".*")
			i++
		case rest[0] == '*':
			expression.WriteString("[^/]*")
		case rest[0] == '?':
			expression.WriteString("[^/]")
		case rest[0] == '[' && strings.IndexByte(rest, ']') > 1:
			end := strings.IndexByte(rest, ']')
			class := rest[1:end]
			if class[0] == '!' {
				class = "^" + class[1:]
			}
			expression.WriteString("[" + strings.ReplaceAll(class, `\`, `\\`) + "]")
			i += end
		default:
			expression.WriteString(regexp.QuoteMeta(rest[:1]))
		}
	}
	return expression.String()
}
