"""What any long job needs: processes, their launch, work shared among them."""
