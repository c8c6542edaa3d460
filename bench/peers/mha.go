package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// MHA is MHA 0.58 with hooks of the classical kind, which run ip and arping on the nodes over ssh. Its manager is on the
// router. Unlike under the other systems, the first server is the primary and the others are read-only replicas of it.
type MHA struct {
	Lab *lab.Lab

	mha     *lab.MHA
	manager *lab.Process
	watched string // the primary that the manager was started for
}

// mhaGiveUp is how long a manager may go on with a failover that has begun.
const mhaGiveUp = 30 * time.Second

// Name returns "mha".
func (*MHA) Name() string { return "mha" }

// Title says what the hooks do.
func (*MHA) Title() string {
	return "MHA 0.58, a ping every second, hooks that run ip and arping over ssh"
}

// Start makes the first server the primary, binds the address there, as an operator would, and starts the manager.
func (m *MHA) Start(ctx context.Context) error {
	primary := m.Lab.Servers()[0].Name
	if err := m.Lab.FollowPrimary(ctx, primary); err != nil {
		return err
	}
	if err := m.bind(ctx, primary); err != nil {
		return err
	}
	var err error
	if m.mha, err = m.Lab.NewMHA(ctx, m.Lab.Router().Name, nil); err != nil {
		return err
	}
	hook, err := m.mha.Classical()
	if err != nil {
		return err
	}
	hooks := map[string]string{"master_ip_failover_script": hook, "master_ip_online_change_script": hook}
	if err := m.mha.WriteConfig(hooks); err != nil {
		return err
	}
	return m.watch(ctx, primary)
}

// bind binds the address and announces it: neighbours may know it at the node where the system before had it.
func (m *MHA) bind(ctx context.Context, node string) error {
	vip, ns := m.Lab.VIP().String(), m.Lab.Node(node).NS
	if _, err := ns.Command(ctx, "ip", "addr", "add", vip+"/32", "dev", lab.Interface); err != nil {
		return err
	}
	_, err := ns.Command(ctx, "arping", "-q", "-c", "1", "-U", "-I", lab.Interface, vip)
	return err
}

// watch starts a manager for a primary and waits until it watches.
func (m *MHA) watch(ctx context.Context, primary string) error {
	if err := m.mha.Forget(); err != nil {
		return err
	}
	var err error
	if m.manager, err = m.mha.Start("masterha_manager", "--ignore_last_failover"); err != nil {
		return err
	}
	m.watched = primary
	if err := m.mha.WaitWatching(ctx, m.manager); err != nil {
		return err
	}
	return servedBy(ctx, m.Lab, map[string]*lab.Process{m.Lab.Router().Name: m.manager})
}

// unwatch ends the manager. One that has begun to fail over is waited for: it moves the address first and the other
// replicas after it.
func (m *MHA) unwatch(ctx context.Context) error {
	if m.manager == nil {
		return nil
	}
	if slices.ContainsFunc(m.Lab.Holders(), func(n string) bool { return n != m.watched }) {
		ctx, cancel := context.WithTimeout(ctx, mhaGiveUp)
		defer cancel()
		if m.manager.Wait(ctx) == nil {
			return nil
		}
	}
	return m.manager.Stop(mhaGiveUp)
}

// Stop ends the manager and the sshds, removes the address and makes the servers a ring again.
func (m *MHA) Stop(ctx context.Context) error {
	errs := []error{m.unwatch(ctx), m.Lab.Mend(ctx)}
	for _, n := range m.Lab.Holders() {
		errs = append(errs, unbind(ctx, m.Lab, n))
	}
	errs = append(errs, m.Lab.JoinRing(ctx))
	if m.mha != nil {
		errs = append(errs, m.mha.Close())
	}
	m.mha, m.manager = nil, nil
	return errors.Join(errs...)
}

// Settle makes replicas of the servers that replicate from nobody, removes the address from them, and starts the manager, which
// ends with each failover.
func (m *MHA) Settle(ctx context.Context) error {
	if err := m.unwatch(ctx); err != nil {
		return err
	}
	primary := m.primary(ctx)
	for _, n := range m.Lab.Servers() {
		if n.Name == primary {
			continue
		}
		if err := unbind(ctx, m.Lab, n.Name); err != nil {
			return err
		}
		if source, err := n.Source(ctx); err == nil && source == m.Lab.Node(primary).Addr.String() {
			continue
		}
		if err := n.Replicate(ctx, primary); err != nil {
			return err
		}
	}
	if !slices.Contains(m.Lab.Holders(), primary) {
		if err := m.bind(ctx, primary); err != nil {
			return err
		}
	}
	return m.watch(ctx, primary)
}

// primary returns the server that others replicate from.
func (m *MHA) primary(ctx context.Context) string {
	for _, n := range m.Lab.Servers() {
		source, err := n.Source(ctx)
		if err != nil {
			continue
		}
		for _, p := range m.Lab.Servers() {
			if p.Addr.String() == source {
				return p.Name
			}
		}
	}
	return m.watched
}

// Move is masterha_master_switch, which does not work beside a manager that watches.
func (m *MHA) Move(ctx context.Context, _, to string) error {
	const name = "masterha_master_switch"
	if err := m.manager.Stop(mhaGiveUp); err != nil {
		return err
	}
	code, err := m.mha.Run(ctx, name, "--master_state=alive", "--interactive=0", "--orig_master_is_new_slave",
		"--new_master_host="+m.Lab.Node(to).Addr.String())
	if err == nil && code != 0 {
		err = fmt.Errorf("%s ended with %d: %s", name, code, m.mha.Output(name))
	}
	return err
}

// errNoDaemon says that there is nothing to kill or freeze.
var errNoDaemon = errors.New("MHA has no daemon on the nodes")

// Kill fails: MHA runs nothing on the nodes.
func (*MHA) Kill(string) error { return errNoDaemon }

// Freeze fails like Kill.
func (*MHA) Freeze(string) error { return errNoDaemon }

// Thaw fails like Kill.
func (*MHA) Thaw(string) error { return errNoDaemon }

// Config returns app1.cnf and the hook.
func (m *MHA) Config() string {
	text, err := os.ReadFile(m.mha.ConfigPath())
	if err != nil {
		return err.Error()
	}
	return string(text) + "\n" + lab.ClassicalScript()
}

// Patience covers a node that does not answer: MHA and the hook wait for ssh several times.
func (*MHA) Patience() time.Duration { return 3 * time.Minute }
