package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
)

const rayBound = 3 * time.Minute // for one program of Ray's under load

// rayUser is somebody with stock Ray and a cluster token.
type rayUser struct {
	t     *testing.T
	token apiv1.RayToken
}

// TestStockRayReachesACluster uses a cluster with what PyPI's Ray has, and with its dashboard in Chromium.
func TestStockRayReachesACluster(t *testing.T) {
	cluster := book(t, 2, 1)
	user := &rayUser{t: t}
	testkit.Eventually(t, settleBound, func() (bool, string) { // waiting for the cluster has used up the engineer's rate
		err := as(t, shared.stack.People().Engineer).Post(t.Context(), "/v1/clusters/"+cluster.ID.String()+"/ray-token", nil, &user.token)
		return err == nil, fmt.Sprint(err)
	})
	raysOwn := user.checkCommandLine()
	user.checkClient()
	user.checkRefusal("mrt_wrong", cluster.ID)
	user.checkAuthenticate(raysOwn)
	checkDashboard(t, cluster.ID, raysOwn, user.token.Token)
	release(t, cluster.ID)
	user.checkRefusal(user.token.Token, cluster.ID)
}

// run runs a program of Ray's environment with what `muster cluster env` prints.
func (u *rayUser) run(token, program string, args ...string) (string, error) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), rayBound)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(shared.venv, "bin", program), args...)
	command.Dir = u.t.TempDir()
	command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "RAY_") })
	for name, value := range u.token.Env {
		if name == "RAY_AUTH_TOKEN" {
			value = token
		}
		command.Env = append(command.Env, name+"="+value)
	}
	output, err := command.CombinedOutput()
	return string(output), err
}

// ray runs Ray's command line, which must succeed and print all of wanted.
func (u *rayUser) ray(args []string, wanted ...string) string {
	u.t.Helper()
	output, err := u.run(u.token.Token, "ray", args...)
	if err != nil {
		u.t.Fatalf("ray %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	for _, part := range wanted {
		if !strings.Contains(output, part) {
			u.t.Errorf("ray %s does not print %q:\n%s", strings.Join(args, " "), part, output)
		}
	}
	return output
}

// checkCommandLine runs jobs with `ray job` and returns Ray's own token, which the job has printed.
func (u *rayUser) checkCommandLine() (raysOwn string) {
	u.t.Helper()
	directory := u.t.TempDir()
	job, err := os.ReadFile(filepath.Join(shared.root, "e2e", "ray_job.py"))
	if err != nil {
		u.t.Fatal(err)
	}
	for name, content := range map[string][]byte{"job.py": job, "words.py": []byte(`GREETING = "from the package"`)} {
		if err := os.WriteFile(filepath.Join(directory, name), content, 0o600); err != nil {
			u.t.Fatal(err)
		}
	}
	output := u.ray([]string{"job", "submit", "--submission-id", "spread", "--working-dir", directory, "--", "python", "job.py"},
		"from the package", "nodes: 2", "succeeded")
	found := regexp.MustCompile(`ray-token: (\S{16,})`).FindStringSubmatch(output)
	if found == nil {
		u.t.Fatalf("the job prints no token:\n%s", output)
	}
	u.ray([]string{"job", "logs", "--follow", "spread"}, "from the package", "nodes: 2", "succeeded")
	u.ray([]string{"job", "submit", "--submission-id", "endless", "--no-wait", "--", "sleep", "3600"}, "submitted successfully")
	u.ray([]string{"job", "stop", "endless"}, "was stopped")
	u.ray([]string{"job", "status", "endless"}, "was stopped")
	u.ray([]string{"job", "list"}, "spread", "endless", "SUCCEEDED", "STOPPED")
	if nodes := u.ray([]string{"list", "nodes"}, "Total: 3"); strings.Count(nodes, "ALIVE") != 3 {
		u.t.Errorf("ray list nodes:\n%s", nodes)
	}
	return found[1]
}

// checkClient runs ray_client.py.
func (u *rayUser) checkClient() {
	u.t.Helper()
	output, err := u.run(u.token.Token, "python", filepath.Join(shared.root, "e2e", "ray_client.py"), "jobs")
	if err != nil {
		u.t.Fatalf("ray_client.py: %v\n%s", err, output)
	}
	var got struct {
		ChattyStatus   string `json:"chatty_status"`
		LongLines      int    `json:"long_lines"`
		ChattyEnded    bool   `json:"chatty_ended"`
		LogsAgree      bool   `json:"logs_agree"`
		StopAccepted   bool   `json:"stop_accepted"`
		StoppedStatus  string `json:"stopped_status"`
		MetadataKept   bool   `json:"metadata_kept"`
		Listed         bool   `json:"listed"`
		DeleteAccepted bool   `json:"delete_accepted"`
		Deleted        bool   `json:"deleted"`
		MissingJob     string `json:"missing_job"`
	}
	lastLine(u.t, output, &got)
	if got.ChattyStatus != "SUCCEEDED" || got.LongLines != 4 || !got.ChattyEnded || !got.LogsAgree {
		u.t.Errorf("following a job with long lines: %+v", got)
	}
	if !got.StopAccepted || got.StoppedStatus != "STOPPED" || !got.MetadataKept || !got.Listed || !got.DeleteAccepted || !got.Deleted ||
		!strings.Contains(got.MissingJob, "404") {
		u.t.Errorf("stopping and deleting a job: %+v", got)
	}
}

func lastLine(t *testing.T, output string, into any) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(output), "\n")
	decoder := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%v in\n%s", err, output)
	}
}

// checkRefusal looks at what Ray's client tells its user.
func (u *rayUser) checkRefusal(token string, cluster ids.Cluster) {
	u.t.Helper()
	output, err := u.run(token, "python", filepath.Join(shared.root, "e2e", "ray_client.py"), "refused")
	want := "Authentication required: This token does not open cluster " + cluster.String()
	if err != nil || !strings.HasPrefix(output, want) || !strings.Contains(output, "`muster cluster env "+cluster.String()+"`") {
		u.t.Errorf("a refused token: %v\n%s", err, output)
	}
}

// checkAuthenticate asks Ray for the cookie in which it gives its token to browsers.
func (u *rayUser) checkAuthenticate(raysOwn string) {
	u.t.Helper()
	request, err := http.NewRequestWithContext(u.t.Context(), http.MethodPost, u.token.Env["RAY_API_SERVER_ADDRESS"]+"/api/authenticate", nil)
	if err != nil {
		u.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+u.token.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var all bytes.Buffer
	if err := response.Write(&all); err != nil {
		u.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Set-Cookie") != "" || strings.Contains(all.String(), raysOwn) {
		u.t.Errorf("Ray's authenticate: %s", all.String())
	}
}

// checkDashboard opens the dashboard in Chromium.
func checkDashboard(t *testing.T, cluster ids.Cluster, secrets ...string) {
	t.Helper()
	screenshot := filepath.Join(t.TempDir(), "dashboard.png")
	ctx, cancel := context.WithTimeout(t.Context(), rayBound)
	defer cancel()
	args := append([]string{filepath.Join(shared.root, "e2e", "dashboard.mjs"), shared.stack.ConsoleURL(), cluster.String(), screenshot}, secrets...)
	var stderr strings.Builder
	browse := exec.CommandContext(ctx, "node", args...)
	browse.Stderr = &stderr
	output, err := browse.Output()
	if err != nil {
		t.Fatalf("dashboard.mjs: %v\n%s", err, stderr.String())
	}
	var got struct {
		Dashboard, Address     string
		Alive                  int
		Failed, Foreign        []string
		Link, Again, Uninvited int
		AgainSays              string `json:"again_says"`
		Responses              int
		Leaks                  []string
		Cookies                []struct {
			Name, Domain, Path, SameSite string
			Secure, HTTPOnly             bool
		}
	}
	lastLine(t, string(output), &got)
	host := strings.Replace(cluster.String(), "_", "-", 1) + "--ray." + strings.TrimPrefix(shared.stack.ConsoleURL(), "http://")
	if got.Dashboard != "http://"+host || got.Address != got.Dashboard+"/" || got.Alive < 3 {
		t.Errorf("the dashboard does not show three nodes: %+v", got)
	}
	for _, failed := range got.Failed { // Ray has no Grafana, Prometheus or platform here, and says so in this way
		if !slices.Contains([]string{"500 /api/grafana_health", "500 /api/prometheus_health", "404 /api/v0/platform_events"}, failed) {
			t.Errorf("the dashboard's page got %s", failed)
		}
	}
	if !slices.Equal(got.Foreign, []string{"refused", "refused", "refused"}) || got.Link != http.StatusForbidden {
		t.Errorf("another origin's page: %q, and its link %d", got.Foreign, got.Link)
	}
	if got.Again != http.StatusUnauthorized || !strings.Contains(got.AgainSays, "has been used") || got.Uninvited != http.StatusUnauthorized {
		t.Errorf("the ticket again: %d %s; no ticket: %d", got.Again, got.AgainSays, got.Uninvited)
	}
	if got.Responses < 10 || len(got.Leaks) > 0 {
		t.Errorf("of %d answers these hold a token: %q", got.Responses, got.Leaks)
	}
	session := false
	for _, c := range got.Cookies {
		session = session || c.Name == "__Host-muster-ray"
		if !strings.HasPrefix(c.Name, "__Host-") || strings.HasPrefix(c.Domain, ".") || !c.Secure || !c.HTTPOnly || c.SameSite != "Lax" || c.Path != "/" {
			t.Errorf("cookie %+v", c)
		}
	}
	if !session {
		t.Errorf("no session among the cookies %+v", got.Cookies)
	}
}
