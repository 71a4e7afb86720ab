#compdef devsup

_devsup_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _DEVSUP_COMPLETE=complete_zsh devsup)
}

compdef _devsup_completion devsup
